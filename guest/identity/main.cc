// agent-vm-identity: reads the identity document on stdin, applies it, prints a report as JSON.
// agent-vm-identity --settle: makes a booted guest fit to become a template; the same report.
// agent-vm-identity --rest [--force]: makes a running guest fit to be saved; the same report.
// agent-vm-identity --wake | --become | --go-on: takes it up again, with an identity on stdin.
// Exit status 0 when every step succeeded, 1 otherwise.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "base/fd.h"
#include "identity/identity.h"
#include "identity/rest.h"

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

// The supervisor waits for this, and asks the guest agent when it hears it. Who cannot ring is
// asked now and then.
void ring() {
  const agent_vm::Fd bell(
      ::open("/dev/virtio-ports/agent-vm.bell.0", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (bell) static_cast<void>(::write(bell.get(), "\n", 1));
}

using Apply = agent_vm::IdentityReport (*)(const agent_vm::Identity&);

agent_vm::IdentityReport with_identity(const std::string& text, Apply how) {
  const auto identity = agent_vm::parse_identity(text);
  if (identity) return how(*identity);
  return {.steps = {}, .failed_step = "parse", .error = identity.error().message(), .evidence = {}};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  agent_vm::IdentityReport report;
  if (mode == "--settle")
    report = agent_vm::settle();
  else if (mode == "--rest")
    report = agent_vm::rest(argc > 2 && std::string_view(argv[2]) == "--force");
  else if (mode == "--wake")
    report = with_identity(read_input(), agent_vm::wake);
  else if (mode == "--go-on")
    report = with_identity(read_input(), agent_vm::go_on);
  else if (mode == "--become")
    report = with_identity(read_input(), agent_vm::become);
  else
    report = with_identity(read_input(), agent_vm::apply_identity);
  const std::string out =
      agent_vm::to_json(report).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::puts(out.c_str());
  std::fflush(stdout);
  ring();
  return report.failed_step.empty() ? 0 : 1;
}
