// What git asks of its ssh: agent-vm-git-ssh is called as if it were that.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

struct SshArguments {
  std::string user = "git";
  std::string host;
  std::string port = "22";
  std::string service;  // "git-upload-pack"
  std::string path;     // without its quotes
};

// Of `[-p PORT] [-o OPTION]... [USER@]HOST "git-upload-pack 'PATH'"`. What is no such call is an
// error: there is no ssh to anywhere else.
Result<SshArguments> parse_ssh_arguments(const std::vector<std::string>& arguments);

}  // namespace agent_vm
