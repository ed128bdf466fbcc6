// Addresses inside a VM's gateway network. Every VM has a network namespace of its own, so all use
// the same ones, and none is ever visible outside.
#pragma once

#include <cstdint>
#include <string_view>

namespace agent_vm {

constexpr std::string_view kGatewayAddress = "10.66.0.1";
constexpr std::string_view kGuestAddress = "10.66.0.15";
constexpr int kGatewayPrefix = 24;
constexpr std::uint16_t kGuestSshPort = 22;
constexpr std::uint16_t kGuestMcpPort = 8000;

}  // namespace agent_vm
