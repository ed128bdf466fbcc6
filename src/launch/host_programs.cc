#include "launch/host_programs.h"

#include <unistd.h>

#include <array>

#include "base/text.h"
#include "os/files.h"
#include "os/run.h"

namespace agent_vm {
namespace {

constexpr const char* kQemu = "/usr/bin/qemu-system-x86_64";
// The first found is taken: the Rust one is maintained, the C one was removed from QEMU 8.
constexpr std::array kVirtiofsd{"/usr/libexec/virtiofsd", "/usr/lib/virtiofsd",
                                "/usr/lib/qemu/virtiofsd"};

Error missing(const char* what, const char* package) {
  return Error(ErrorKind::kMissing, fmt::format("{} is not installed", what))
      .with_hint(fmt::format("sudo apt-get install {}", package));
}

// "QEMU emulator version 7.2.22 (Debian ...)" -> "7.2.22"
std::string parse_version(std::string_view text) {
  constexpr std::string_view kBefore = "version ";
  const auto at = text.find(kBefore);
  if (at == std::string_view::npos) return "";
  text.remove_prefix(at + kBefore.size());
  return std::string(text.substr(0, text.find_first_of(" \n(")));
}

// The names before "=" in the output of -machine q35,help.
std::vector<std::string> parse_machine_options(std::string_view text) {
  std::vector<std::string> names;
  for (const auto& line : split_lines(text)) {
    const auto trimmed = trim(line);
    const auto equals = trimmed.find("=<");
    if (equals != std::string_view::npos) names.emplace_back(trimmed.substr(0, equals));
  }
  return names;
}

}  // namespace

Status find_qemu(HostPrograms& programs, const Deadline& deadline) {
  if (::access(kQemu, X_OK) != 0)
    return tl::unexpected(missing("QEMU (qemu-system-x86_64)", "qemu-system-x86"));
  programs.qemu = kQemu;
  const std::string version =
      TRY(run_checked({.argv = {kQemu, "--version"}, .deadline = deadline})).out;
  programs.qemu_version = parse_version(version);
  programs.qemu_build = version.substr(0, version.find('\n'));
  if (programs.qemu_version.empty())
    return fail(ErrorKind::kMissing, "{} does not say which version it is", kQemu);
  programs.machine_options = parse_machine_options(
      TRY(run_checked({.argv = {kQemu, "-machine", "q35,help"}, .deadline = deadline})).out);
  return {};
}

Status find_virtiofsd(HostPrograms& programs, const Deadline& deadline) {
  for (const char* path : kVirtiofsd) {
    if (::access(path, X_OK) == 0) {
      programs.virtiofsd = path;
      break;
    }
  }
  if (programs.virtiofsd.empty()) {
    // Part of QEMU until Debian 12, a package of its own since.
    const std::string release = read_file("/etc/os-release", 65536).value_or("");
    const bool bookworm = release.find("VERSION_ID=\"12\"") != std::string::npos;
    return tl::unexpected(missing("virtiofsd", bookworm ? "qemu-system-common" : "virtiofsd"));
  }
  // The two versions share a name and nothing of their options; the help text tells them apart.
  const auto help = TRY(run({.argv = {programs.virtiofsd, "--help"}, .deadline = deadline}));
  programs.virtiofsd_is_rust = help.out.find("--shared-dir") != std::string::npos;
  return {};
}

Result<HostPrograms> find_host_programs(const Deadline& deadline) {
  HostPrograms programs;
  TRY(find_qemu(programs, deadline));
  TRY(find_virtiofsd(programs, deadline));
  return programs;
}

}  // namespace agent_vm
