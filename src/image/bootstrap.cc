#include "image/bootstrap.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/text.h"
#include "image/apt.h"
#include "image/archive.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;

// What dpkg does not unpack. Copyright files stay: they are the licences.
const std::vector<std::string> kDpkgOptions{
    "path-exclude=/usr/share/man/*",    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/doc/*",    "path-include=/usr/share/doc/*/copyright"};

// update-alternatives links pages that are not there, and fails without their folder: Java could
// not be installed. Not by path-include, with which dpkg keeps all links below /usr/share/man.
constexpr const char* kManualFolders =
    "for n in 1 2 3 4 5 6 7 8; do mkdir -p \"$1/usr/share/man/man$n\"; done";

// A repository of just these packages, so that apt can choose nothing else.
Status make_repository(const ImageLock& lock, const std::string& cache, const std::string& folder) {
  std::string index;
  for (const auto& package : lock.packages) {
    const std::string cached = fmt::format("{}/{}.deb", cache, package.sha256);
    const Fd file(::open(cached.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return fail_errno(errno, "cannot read {}", cached);
    if (TRY(sha256_hex_of_file(file.get())) != package.sha256) {
      ::unlink(cached.c_str());
      return tl::unexpected(
          Error(ErrorKind::kFailed,
                fmt::format("the cached package {} was damaged, and has been removed", cached))
              .with_hint("run the command again: it is fetched anew"));
    }
    // Another owner, or another file system, may forbid a link; then it is a copy.
    const std::string name = package.sha256 + ".deb";
    std::error_code error;
    fs::create_hard_link(cached, folder + "/" + name, error);
    if (error) fs::copy_file(cached, folder + "/" + name, error);
    if (error) return fail("cannot put a package into {}: {}", folder, error.message());
    const std::string control = TRY(read_deb_control(cached));
    index += fmt::format("{}\nFilename: ./{}\nSize: {}\nSHA256: {}\n\n", trim(control), name,
                         package.size, package.sha256);
  }
  const std::string deb = TRY(make_stand_in_package(folder));
  const std::string bytes = TRY(read_file(deb, 1U << 20U));
  const std::string control = TRY(read_deb_control(deb));
  index += fmt::format("{}\nFilename: ./{}.deb\nSize: {}\nSHA256: {}\n", trim(control),
                       kStandInPackage, bytes.size(), sha256_hex(bytes));
  const Fd dir = TRY(open_directory(folder));
  TRY(write_file_atomic(dir.get(), "Packages", index, 0644));
  // mmdebstrap asks apt for the essential packages of the release by its name.
  const std::string release =
      fmt::format("Suite: {0}\nCodename: {0}\nArchitectures: {1}\nSHA256:\n {2} {3} Packages\n",
                  lock.release, lock.architecture, sha256_hex(index), index.size());
  return write_file_atomic(dir.get(), "Release", release, 0644);
}

std::string names_of(const ImageLock& lock) {
  std::string names = kStandInPackage;
  for (const auto& package : lock.packages) names += "," + package.name;
  return names;
}

// mmdebstrap tells what dpkg does: each package is unpacked and set up once, and then the tree is
// packed, which takes about as long as a twentieth of it.
std::function<void(std::string_view)> count_packages(const ImageLock& lock, Progress& progress) {
  const double steps = 2.1 * static_cast<double>(lock.packages.size());
  return [&progress, steps, done = 0.0](std::string_view line) mutable {
    if (!line.starts_with("Unpacking ") && !line.starts_with("Setting up ")) return;
    done += 1;
    progress.fraction(std::min(1.0, done / steps));
  };
}

// Run by root, mmdebstrap mounts /proc and others where they would be seen, and stay when it is
// killed. In a mount namespace of its own they go away with it.
Status isolate() {
  ::umask(022);
  if (::geteuid() != 0) return {};  // it makes its own namespaces
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return fail_errno(errno, "cannot make a mount namespace to install the packages in");
  }
  return {};
}

// What a person needs of the many lines that mmdebstrap prints.
Error explain(const CommandOutput& output) {
  constexpr std::size_t kMaxLine = 200;  // command lines with all packages are no help
  constexpr std::size_t kShown = 20;
  std::vector<std::string> last;
  for (auto& line : split_lines(output.error)) {
    if (line.size() > kMaxLine) line = line.substr(0, kMaxLine) + "...";
    // The first sign of a full disk comes long before the end.
    if (line.find("No space left on device") != std::string::npos) {
      return Error(ErrorKind::kFailed, "the disk is full: the packages could not be installed")
          .with_evidence({line})
          .with_hint("a build needs about 3 GB; TMPDIR names another place for it");
    }
    if (last.size() == kShown) last.erase(last.begin());
    last.push_back(std::move(line));
  }
  return Error(ErrorKind::kFailed,
               fmt::format("cannot install the packages: mmdebstrap {}", output.exit.describe()))
      .with_evidence(std::move(last));
}

}  // namespace

std::string bootstrap_options_id() {
  return "2 " + join(kDpkgOptions, " ") + kManualFolders;
}

Status check_bootstrap() {
  Command command;
  // Without root, the first step of an installation: the user's subordinate ids.
  command.argv = {"mmdebstrap", ::geteuid() == 0 ? "--version" : "--unshare-helper"};
  if (::geteuid() != 0) command.argv.emplace_back("true");
  auto checked = run_checked(command);
  if (checked) return {};
  auto error = std::move(checked).error();
  if (error.kind() == ErrorKind::kMissing) {
    return tl::unexpected(std::move(error).with_hint("apt-get install mmdebstrap"));
  }
  if (error.kind() != ErrorKind::kFailed) return tl::unexpected(std::move(error));
  return tl::unexpected(
      std::move(error)
          .within("cannot build an image as this user, who is not root")
          .with_kind(ErrorKind::kMissing)
          .with_hint("subordinate ids are needed, and newuidmap (package uidmap): see agent-vm "
                     "doctor"));
}

Status install_packages(const ImageLock& lock, const std::string& cache, const Scratch& scratch,
                        const Limits& limits, Progress& progress, const std::string& tar_path) {
  const std::string repository = TRY(scratch.folder("repository"));
  TRY(make_repository(lock, cache, repository));
  const std::string temporary = TRY(scratch.folder("tmp"));

  Command command;
  command.argv = {"mmdebstrap",
                  "--verbose",
                  "--format=tar",
                  "--variant=essential",
                  ::geteuid() == 0 ? "--mode=root" : "--mode=unshare",
                  "--architectures=" + lock.architecture,
                  "--include=" + names_of(lock),
                  std::string("--setup-hook=") + kManualFolders,
                  "--aptopt=APT::Install-Recommends \"false\"",
                  "--aptopt=Acquire::Languages \"none\""};
  for (const auto& option : kDpkgOptions) command.argv.push_back("--dpkgopt=" + option);
  // The tree is thrown away after it was packed: syncing each of its files only costs time.
  command.argv.emplace_back("--dpkgopt=force-unsafe-io");
  command.argv.insert(
      command.argv.end(),
      {lock.release, tar_path, fmt::format("deb [trusted=yes] copy:{} ./", repository)});
  // Maintainer scripts see this environment: it must not depend on who builds.
  command.environment = {{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                          "LC_ALL=C.UTF-8", "HOME=/nonexistent", "TMPDIR=" + temporary,
                          fmt::format("SOURCE_DATE_EPOCH={}", lock.time)}};
  command.working_directory = "/";
  command.max_output = 64U << 20U;
  limits.apply_to(command);
  command.on_error_line = count_packages(lock, progress);
  command.in_child = isolate;
  const CommandOutput output = TRY(run(command));
  if (!output.ok()) return tl::unexpected(explain(output));
  return {};
}

}  // namespace agent_vm
