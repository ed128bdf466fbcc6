#include "supervise/identity_program.h"

#include "base/text.h"

namespace agent_vm {

using nlohmann::json;

namespace {

// Whatever the guest says may have any type.
std::string text_of(const json& report, const char* member) {
  const auto found = report.find(member);
  return found != report.end() && found->is_string() ? found->get<std::string>() : "?";
}

Result<json> read_report(const Result<GuestCommandResult>& done) {
  if (!done) return tl::unexpected(Error(done.error()).within("the identity program"));
  const json report = json::parse(done->out, nullptr, false);
  std::vector<std::string> evidence = split_lines(done->error);
  if (!report.is_object()) {
    return tl::unexpected(
        Error(ErrorKind::kFailed, "the guest's identity program printed nothing that makes sense")
            .with_evidence(std::move(evidence)));
  }
  const auto ok = report.find("ok");
  if (ok != report.end() && *ok == true) {
    const auto steps = report.find("steps");
    return steps != report.end() ? *steps : json::array();
  }
  const auto lines = report.find("evidence");
  if (lines != report.end() && lines->is_array()) {
    for (const auto& line : *lines) {
      if (line.is_string()) evidence.push_back(line.get<std::string>());
    }
  }
  return tl::unexpected(Error(ErrorKind::kFailed,
                              fmt::format("the guest failed at '{}': {}",
                                          text_of(report, "failed_step"), text_of(report, "error")))
                            .with_evidence(std::move(evidence)));
}

}  // namespace

Task<Result<json>> run_identity_program(GuestAgent& agent, std::vector<std::string> arguments,
                                        std::string input, Deadline deadline) {
  const auto done = co_await agent.run("/usr/lib/agent-vm/agent-vm-identity", std::move(arguments),
                                       std::move(input), deadline);
  co_return read_report(done);
}

}  // namespace agent_vm
