// The guest's resolver: every name is at the gateway, and nobody is asked. So no query of the
// guest's leaves, and none can carry data out (S18); which host a connection is really for, the
// proxy reads from the connection itself.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm {

// The answer to a DNS message: the gateway's address for a question of type A, "no such data" for
// any other. Nothing for what is not one ordinary question.
std::optional<std::string> answer_query(std::string_view query);

// Answers what arrives on a UDP socket until killed.
Status run_resolver(int socket);

}  // namespace agent_vm
