// Secrets that never enter a VM: the guest sees a placeholder, and the proxy puts the value in its
// place, in one header, on the way to the hosts that are named here. In the owner's own
// configuration only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace agent_vm {

struct SecretSource {
  // Where the value is, at each start: exactly one of them.
  std::string environment;           // name of a variable of the starting command
  std::string file;                  // absolute path
  std::vector<std::string> command;  // prints it
  std::vector<std::string> hosts;    // that get it: "api.example.org", "*.example.org"
  std::string header = "Authorization";

  bool operator==(const SecretSource&) const = default;
};

// `name` is also the variable that holds the placeholder in the guest.
Status validate_secret(const std::string& name, const SecretSource& secret);

}  // namespace agent_vm
