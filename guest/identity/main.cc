// agent-vm-identity: reads the identity document on stdin, applies it, prints a report as JSON.
// agent-vm-identity --settle: makes a booted guest fit to become a template; the same report.
// Exit status 0 when every step succeeded, 1 otherwise.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "identity/identity.h"

namespace {

std::string read_input() {
  std::string text;
  std::array<char, 4096> buffer{};
  ssize_t got = 0;
  while ((got = ::read(0, buffer.data(), buffer.size())) > 0 && text.size() < (1U << 20U)) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

agent_vm::IdentityReport apply(const std::string& text) {
  agent_vm::IdentityReport report;
  if (const auto identity = agent_vm::parse_identity(text)) {
    report = agent_vm::apply_identity(*identity);
  } else {
    report.failed_step = "parse";
    report.error = identity.error().message();
  }
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  const bool settles = argc == 2 && std::string_view(argv[1]) == "--settle";
  const auto report = settles ? agent_vm::settle() : apply(read_input());
  const std::string out =
      agent_vm::to_json(report).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::puts(out.c_str());
  return report.failed_step.empty() ? 0 : 1;
}
