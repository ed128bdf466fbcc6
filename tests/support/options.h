// What the command line of the test program says, for every test.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace agent_vm::test {

struct TestOptions {
  std::string agent_vm;            // path of the program under test
  std::string timeout;             // passed on as --timeout; empty: agent-vm's own limits
  bool debug = false;              // passed on as --debug
  bool verbose = false;            // passed on as --verbose
  bool keep = false;               // leave every test's directory
  std::pair<int, int> part{1, 1};  // which one of how many, into which the suites are divided
  std::string turns;               // file of turn.h, shared with another test program; empty: none
  std::string user;                // an ordinary one, for root's tests; empty: none
  std::string root;                // holds one directory for each VM of this run
};

// Written once by main, before the first test.
TestOptions& options();

// What `agent-vm` gets in front of the verb because of the options above.
std::vector<std::string> passed_on();

}  // namespace agent_vm::test
