#include "cli/fetch.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <map>

#include "base/log.h"
#include "base/text.h"
#include "os/files.h"
#include "os/random.h"

namespace agent_vm {
namespace {

using Refs = std::map<std::string, std::string>;  // name -> commit

// A directory in the VM's own, removed at the end of its scope.
class Scratch {
 public:
  static Result<Scratch> make(const VmDirectory& vm) {
    // What an earlier fetch left when it was killed.
    for (const auto& name : TRY(list_directory(vm.fd()))) {
      if (name.starts_with(kPrefix)) TRY(remove_tree_at(vm.fd(), name));
    }
    const std::string name = kPrefix + TRY(random_hex(8));
    TRY(make_directory_at(vm.fd(), name, 0700));
    return Scratch(vm, name);
  }
  Scratch(Scratch&& other) noexcept : vm_(other.vm_), name_(std::exchange(other.name_, "")) {}
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch() {
    if (name_.empty()) return;
    if (const auto removed = remove_tree_at(vm_.fd(), name_); !removed) {
      log::warn("cannot clean up: {}", removed.error().message());
    }
  }
  std::string path() const { return vm_.path() + "/" + name_; }

 private:
  static constexpr const char* kPrefix = ".fetch-";
  Scratch(const VmDirectory& vm, std::string name) : vm_(vm), name_(std::move(name)) {}
  const VmDirectory& vm_;
  std::string name_;
};

Result<std::string> git_in(const std::string& directory, std::vector<std::string> arguments,
                           const Bounds& bounds, std::string_view doing,
                           const std::string& protocols = "none") {
  arguments.insert(arguments.begin(), {"-C", directory});
  const CommandOutput output = TRY(run(git_command(arguments, bounds, protocols)));
  if (!output.ok()) return tl::unexpected(git_error(output, doing));
  return std::string(trim(output.out));
}

// ssh as git is to call it: git itself adds the address and the command.
std::string ssh_command(const SshTarget& target) {
  std::vector<std::string> argv = ssh_argv(target, use_kept_connection(target, "-T"));
  argv.pop_back();
  return shell_join(argv);
}

std::string repository_url(const SshTarget& target) {
  const bool ipv6 = target.address.find(':') != std::string::npos;
  return fmt::format("ssh://{}:{}/workspace", ipv6 ? "[" + target.address + "]" : target.address,
                     target.port);
}

// What the scratch has to know of the user's repository.
struct Destination {
  std::string objects;        // its folder
  std::string object_format;  // "sha1" or "sha256"
  std::string shallow;        // content of its shallow file: where its history is cut off
};

Result<Destination> examine_destination(const std::string& repository, const Bounds& bounds) {
  const std::string answers =
      TRY(git_in(repository,
                 {"rev-parse", "--show-object-format", "--path-format=absolute", "--git-path",
                  "objects", "--git-path", "shallow"},
                 bounds, fmt::format("cannot use the repository {}", escape_line(repository))));
  const auto lines = split_lines(answers);
  if (lines.size() != 3) return fail("cannot understand git's answers about {}", repository);
  constexpr std::size_t kMaxShallow = 16U << 20U;
  return Destination{lines[1], lines[0], read_file(lines[2], kMaxShallow).value_or("")};
}

// The part that talks to the guest: into the scratch, which knows the user's objects, so that only
// what is new is sent.
Status receive(const std::string& scratch, const SshTarget& target, const Destination& destination,
               std::uint64_t max_bytes, const Bounds& bounds) {
  TRY(git_in(scratch,
             {"init", "--quiet", "--bare",
              "--template=", "--object-format=" + destination.object_format, "."},
             bounds, "cannot make a scratch repository"));
  const Fd dir = TRY(open_directory(scratch));
  TRY(make_directory_at(dir.get(), "objects/info", 0700));
  const Fd info = TRY(open_beneath(dir.get(), "objects/info", O_RDONLY | O_DIRECTORY));
  TRY(write_file_atomic(info.get(), "alternates", destination.objects + "\n", 0600));
  if (!destination.shallow.empty()) {
    TRY(write_file_atomic(dir.get(), "shallow", destination.shallow, 0600));
  }

  std::vector<std::string> arguments{"-C", scratch};
  for (const auto* setting :
       {"fetch.fsckObjects=true", "fetch.unpackLimit=1", "transfer.unpackLimit=1",
        "transfer.bundleURI=false", "fetch.recurseSubmodules=false", "submodule.recurse=false"}) {
    arguments.insert(arguments.end(), {"-c", setting});
  }
  arguments.insert(arguments.end(), {"fetch", "--quiet", "--no-tags", "--no-recurse-submodules",
                                     "--no-write-fetch-head", "--no-auto-maintenance", "--",
                                     repository_url(target), "+refs/heads/*:refs/heads/*"});
  Command command = git_command(arguments, bounds, "ssh");
  // No configuration of anybody's: the user's may rewrite URLs, or run programs for them.
  for (const auto& variable :
       {std::string("GIT_CONFIG_GLOBAL=/dev/null"), std::string("GIT_CONFIG_NOSYSTEM=1"),
        std::string("GIT_SSH_VARIANT=ssh"), "GIT_SSH_COMMAND=" + ssh_command(target)}) {
    command.extra_environment.push_back(variable);
  }
  command.in_child = [max_bytes]() -> Status {
    const rlimit limit{max_bytes, max_bytes};
    // An error of write(), which git reports, rather than a silent death.
    static_cast<void>(std::signal(SIGXFSZ, SIG_IGN));
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return fail_errno(errno, "cannot bound the fetch");
    return {};
  };
  const CommandOutput output = TRY(run(command));
  if (output.ok()) return {};
  Error error = git_error(output, "fetching from the VM");
  if (output.error.find(errno_text(EFBIG)) != std::string::npos) {
    error = Error(ErrorKind::kFailed, fmt::format("fetching from the VM: it sends more than {}",
                                                  format_size(max_bytes)))
                .with_evidence(error.evidence())
                .with_hint("if that is right, raise it: agent-vm fetch --max-size 10G");
  }
  return tl::unexpected(std::move(error));
}

Result<Refs> read_refs(const std::string& repository, const std::string& prefix,
                       const Bounds& bounds) {
  const std::string text =
      TRY(git_in(repository, {"for-each-ref", "--format=%(refname) %(objectname)", prefix}, bounds,
                 "cannot list references"));
  Refs refs;
  for (const auto& line : split_lines(text)) {
    const auto space = line.rfind(' ');
    if (space != std::string::npos) refs[line.substr(0, space)] = line.substr(space + 1);
  }
  return refs;
}

Result<FetchedRef> describe_change(const std::string& repository, const std::string& name,
                                   const std::string& before, const std::string& after,
                                   const Bounds& bounds) {
  FetchedRef ref{.name = name, .before = before, .after = after};
  // Of a new branch: what none of the user's own branches has.
  std::vector<std::string> count{"rev-list", "--count", after};
  if (before.empty()) {
    count.insert(count.end(), {"--not", "--branches"});
  } else {
    count.push_back("^" + before);
    const CommandOutput contained = TRY(
        run(git_command({"-C", repository, "merge-base", "--is-ancestor", before, after}, bounds)));
    ref.forced = !contained.ok();
  }
  const std::string number = TRY(git_in(repository, count, bounds, "cannot count commits"));
  ref.commits = parse_unsigned(number).value_or(0);
  return ref;
}

}  // namespace

Result<std::vector<FetchedRef>> fetch_from_vm(const VmDirectory& vm, const SshTarget& target,
                                              const std::string& repository,
                                              std::uint64_t max_bytes, const Bounds& bounds) {
  const Destination destination = TRY(examine_destination(repository, bounds));
  const std::string prefix = fmt::format("refs/remotes/agent-vm/{}", vm.name());
  const Scratch scratch = TRY(Scratch::make(vm));
  TRY(receive(scratch.path(), target, destination, max_bytes, bounds));
  TRY(bounds.check());

  const Refs before = TRY(read_refs(repository, prefix, bounds));
  TRY(git_in(
      repository,
      {"-c", "fetch.unpackLimit=1", "-c", "transfer.unpackLimit=1", "-c",
       "fetch.recurseSubmodules=false", "fetch", "--quiet", "--no-tags", "--no-recurse-submodules",
       "--no-write-fetch-head", "--no-auto-maintenance", "--upload-pack=git-upload-pack", "--",
       scratch.path(), fmt::format("+refs/heads/*:{}/*", prefix)},
      bounds, "taking the VM's branches over", "file"));
  const Refs after = TRY(read_refs(repository, prefix, bounds));
  std::vector<FetchedRef> changed;
  for (const auto& [name, commit] : after) {
    const auto old = before.find(name);
    const std::string was = old == before.end() ? "" : old->second;
    if (was == commit) continue;
    changed.push_back(TRY(describe_change(repository, name, was, commit, bounds)));
  }
  return changed;
}

}  // namespace agent_vm
