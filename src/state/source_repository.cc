#include "state/source_repository.h"

#include <poll.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "base/text.h"
#include "state/state_directory.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;

bool is_within(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder == "/" ? folder : folder + "/");
}

Result<std::string> canonical(const std::string& path) {
  std::array<char, PATH_MAX> buffer{};
  if (::realpath(path.c_str(), buffer.data()) == nullptr) {
    const int error = errno;
    return fail(ErrorKind::kInvalidInput, "{}: {}", escape_line(path), errno_text(error));
  }
  return std::string(buffer.data());
}

// Both that of the environment and that of the user database: either may be the one with secrets.
std::vector<std::string> home_directories() {
  std::vector<std::string> homes;
  const char* home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe): single-threaded
  if (home != nullptr) homes.emplace_back(home);
  std::array<char, 16384> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    homes.emplace_back(found->pw_dir);
  }
  std::vector<std::string> real;
  for (const auto& path : homes) {
    if (auto resolved = canonical(path); resolved && *resolved != "/") real.push_back(*resolved);
  }
  return real;
}

Status check_place(const std::string& path, const std::string& state_directory) {
  const auto state = canonical(state_directory);
  for (const auto& home : home_directories()) {
    TRY(check_shareable(path, home, state ? *state : state_directory));
  }
  return check_shareable(path, "", state ? *state : state_directory);
}

// Trimmed stdout, or nothing when git says no.
Result<std::optional<std::string>> ask(const std::string& top, std::vector<std::string> arguments,
                                       const Bounds& bounds) {
  arguments.insert(arguments.begin(), {"-C", top});
  const CommandOutput output = TRY(run(git_command(arguments, bounds)));
  if (!output.ok()) return std::nullopt;
  return std::string(trim(output.out));
}

Result<std::string> find_top(const std::string& path, const Bounds& bounds) {
  const CommandOutput output = TRY(run(git_command(
      {"-C", path, "rev-parse", "--is-bare-repository", "--is-inside-git-dir"}, bounds)));
  if (!output.ok()) {
    Error error(ErrorKind::kInvalidInput,
                fmt::format("{} is not a git repository", escape_line(path)));
    if (output.error.find("dubious ownership") == std::string::npos) {
      return tl::unexpected(std::move(error).with_hint("make one there with: git init"));
    }
    return tl::unexpected(
        Error(
            ErrorKind::kInvalidInput,
            fmt::format("{} belongs to another user, and git does not trust it", escape_line(path)))
            .with_hint(fmt::format("if you do: git config --global --add safe.directory {}",
                                   shell_quote(path))));
  }
  const auto answers = split_lines(output.out);
  if (answers.size() == 2 && answers[0] == "true") {
    return fail(ErrorKind::kInvalidInput,
                "{} is a bare repository: it has no branch checked out; clone it first",
                escape_line(path));
  }
  if (answers.size() == 2 && answers[1] == "true") {
    return fail(ErrorKind::kInvalidInput, "{} is inside a .git directory", escape_line(path));
  }
  const auto top = TRY(ask(path, {"rev-parse", "--show-toplevel"}, bounds));
  if (!top || top->empty()) {
    return fail(ErrorKind::kInvalidInput, "{} is not in a working tree", escape_line(path));
  }
  return canonical(*top);
}

Status check_branch_name(const std::string& branch, const Bounds& bounds) {
  constexpr std::size_t kMaxComponent = 200;  // as a file name, with git's ".lock" behind it
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kInvalidInput, "'{}' cannot be the name of a branch: {}",
                escape_line(branch.substr(0, 80)), why);
  };
  if (branch.starts_with('-')) return refuse("it starts with '-'");
  if (branch == "HEAD" || branch == "@") return refuse("git uses that name itself");
  if (branch.find('\0') != std::string::npos) return refuse("it contains a NUL byte");
  for (const auto& component : split(branch, '/')) {
    if (component.size() > kMaxComponent) return refuse("it is too long");
  }
  const CommandOutput output =
      TRY(run(git_command({"check-ref-format", "refs/heads/" + branch}, bounds)));
  if (!output.ok()) return refuse("git refuses it (see: git help check-ref-format)");
  return {};
}

Result<bool> has_commit(const std::string& top, const std::string& ref, const Bounds& bounds) {
  const auto commit = TRY(ask(
      top, {"rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}"}, bounds));
  return commit.has_value() && !commit->empty();
}

Status choose_branch(SourceRepository& source, const std::string& asked, const Bounds& bounds) {
  const auto head =
      TRY(ask(source.top, {"rev-parse", "--verify", "--quiet", "HEAD^{commit}"}, bounds));
  if (!head || head->empty()) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput,
              fmt::format("{} has no commit yet, so there is nothing to clone",
                          escape_line(source.top)))
            .with_hint("make one with: git commit --allow-empty -m 'first commit'"));
  }
  if (asked.empty()) {
    const auto current =
        TRY(ask(source.top, {"symbolic-ref", "--quiet", "--short", "HEAD"}, bounds));
    source.branch_is_new = !current;
    source.branch = current ? *current : detached_branch_name(*head);
    source.from_ref = "HEAD";
    return {};
  }
  TRY(check_branch_name(asked, bounds));
  source.branch = asked;
  for (const std::string prefix : {"refs/heads/", "refs/remotes/origin/"}) {
    if (TRY(has_commit(source.top, prefix + asked, bounds))) {
      source.from_ref = prefix + asked;
      return {};
    }
  }
  source.from_ref = "HEAD";
  source.branch_is_new = true;
  return {};
}

Result<std::string> remote_url(const std::string& top, const std::string& remote,
                               const Bounds& bounds) {
  // The raw value: `git remote get-url` would apply the user's insteadOf, where tokens like to
  // live.
  const auto url = TRY(ask(top, {"config", "--get", "remote." + remote + ".url"}, bounds));
  if (!url) return std::string();
  if (escape_line(*url) != *url) {
    log::warn("the URL of the remote '{}' contains control characters and is left out", remote);
    return std::string();
  }
  return without_credentials(*url);
}

}  // namespace

Status Bounds::check() const {
  pollfd waiting{interrupt_fd, POLLIN, 0};
  if (interrupt_fd >= 0 && ::poll(&waiting, 1, 0) == 1) {
    return fail(ErrorKind::kInterrupted, "interrupted");
  }
  if (deadline.expired()) return fail(ErrorKind::kTimeout, "not done in time");
  return {};
}

Command git_command(const std::vector<std::string>& arguments, const Bounds& bounds,
                    const std::string& protocols) {
  Command command;
  command.argv = {"git", "--no-pager",
                  "-c",  "core.fsmonitor=false",
                  "-c",  "core.hooksPath=/dev/null",
                  "-c",  "core.alternateRefsCommand=true",
                  "-c",  "gc.auto=0",
                  "-c",  "maintenance.auto=false"};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  // LC_ALL: messages are looked at.
  command.extra_environment = {"GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
                               "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=" + protocols,
                               "LC_ALL=C.UTF-8"};
  command.deadline = bounds.deadline;
  command.interrupt_fd = bounds.interrupt_fd;
  return command;
}

Error git_error(const CommandOutput& output, std::string_view doing) {
  auto lines = split_lines(output.error);
  // git ends with advice; the cause is further up.
  const auto cause = std::ranges::find_if(lines, [](const std::string& line) {
    return line.starts_with("fatal: ") || line.starts_with("error: ");
  });
  const std::string why = cause != lines.end() ? escape_line(*cause) : output.exit.describe();
  constexpr std::ptrdiff_t kShown = 20;
  if (std::ssize(lines) > kShown) lines.erase(lines.begin(), lines.end() - kShown);
  return Error(ErrorKind::kFailed, fmt::format("{}: {}", doing, why))
      .with_evidence(std::move(lines));
}

Status check_shareable(const std::string& path, const std::string& home, const std::string& state) {
  const auto refuse = [&](std::string_view why) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput,
              fmt::format("refusing {} as a workspace: {}", escape_line(path), why))
            .with_hint("give the agent a repository of its own, and name that"));
  };
  if (path == "/") return refuse("it is the whole file system");
  if (is_within(path, state)) return refuse("it is in the state directory of agent-vm itself");
  for (const auto& component : split(path, '/')) {
    for (const std::string_view secret : {".ssh", ".gnupg", ".aws", ".kube"}) {
      if (component == secret) return refuse(fmt::format("keys live in {}", secret));
    }
  }
  if (home.empty()) return {};
  if (path == home) return refuse("it is your home directory");
  if (is_within(home, path)) return refuse("your home directory is in it");
  if (is_within(path, home + "/.config/agent-vm")) {
    return refuse("your configuration of agent-vm is there");
  }
  return {};
}

std::string without_credentials(const std::string& url) {
  const auto scheme_end = url.find("://");
  if (scheme_end == std::string::npos) return url;  // a path, or user@host:path
  const std::string scheme = url.substr(0, scheme_end + 3);
  std::string rest = url.substr(scheme_end + 3);
  const auto slash = rest.find('/');
  std::string authority = rest.substr(0, slash);
  std::string path = slash == std::string::npos ? "" : rest.substr(slash);
  if (const auto at = authority.rfind('@'); at != std::string::npos) {
    const std::string user = authority.substr(0, authority.find_first_of(":@"));
    const std::string host = authority.substr(at + 1);
    const bool account = scheme == "ssh://" || scheme == "git+ssh://" || scheme == "ssh+git://";
    authority = account && !user.empty() ? user + "@" + host : host;
  }
  // Some hosts take tokens in the query.
  path = path.substr(0, path.find_first_of("?#"));
  return scheme + authority + path;
}

Result<SourceRepository> inspect_source(const std::string& path, const std::string& branch,
                                        const std::string& state_directory, const Bounds& bounds) {
  const std::string place = TRY(canonical(path));
  std::error_code error;
  if (!fs::is_directory(place, error)) {
    return fail(ErrorKind::kInvalidInput, "{} is not a directory", escape_line(place));
  }
  // Before any git runs: a workspace is written by a guest (S10).
  TRY(check_place(place, state_directory));
  SourceRepository source;
  auto top = find_top(place, bounds);
  if (!top) {
    Error failure = std::move(top).error();
    if (failure.kind() == ErrorKind::kMissing) {
      failure = std::move(failure).with_hint("sudo apt-get install git");
    }
    return tl::unexpected(std::move(failure));
  }
  source.top = *top;
  TRY(check_place(source.top, state_directory));
  if (escape_line(source.top) != source.top) {
    return fail(ErrorKind::kInvalidInput,
                "the path of the repository, {}, is not UTF-8 or contains control characters",
                escape_line(source.top));
  }
  source.name = fs::path(source.top).filename().string();
  TRY(choose_branch(source, branch, bounds));
  source.object_format =
      TRY(ask(source.top, {"rev-parse", "--show-object-format"}, bounds)).value_or("sha1");
  source.origin = TRY(remote_url(source.top, "origin", bounds));
  source.upstream = TRY(remote_url(source.top, "upstream", bounds));
  if (source.upstream == source.origin) source.upstream.clear();
  source.user_name = TRY(ask(source.top, {"config", "user.name"}, bounds)).value_or("");
  source.user_email = TRY(ask(source.top, {"config", "user.email"}, bounds)).value_or("");
  return source;
}

}  // namespace agent_vm
