#include "image/apt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "image/archive.h"
#include "image/host_settings.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArchitecture = "amd64";
constexpr const char* kAptHelper = "/usr/lib/apt/apt-helper";
constexpr std::size_t kMaxRelease = 4U << 20U;

Status write_text(const std::string& path, std::string_view text) {
  const Fd dir = TRY(open_directory(fs::path(path).parent_path()));
  return write_file_atomic(dir.get(), fs::path(path).filename(), text, 0644);
}

using Fields = std::map<std::string, std::string>;

// Stanzas of "Name: value" lines; continuation lines are left out.
std::vector<Fields> parse_stanzas(std::string_view text) {
  std::vector<Fields> stanzas(1);
  for (const auto& line : split_lines(text)) {
    if (line.empty()) {
      if (!stanzas.back().empty()) stanzas.emplace_back();
    } else if (const auto colon = line.find(": "); line[0] != ' ' && colon != std::string::npos) {
      stanzas.back().emplace(line.substr(0, colon), line.substr(colon + 2));
    }
  }
  if (stanzas.back().empty()) stanzas.pop_back();
  return stanzas;
}

std::string percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::sscanf(std::string(text.substr(i + 1, 2)).c_str(), "%2x", &value) == 1) {
      decoded += static_cast<char>(value);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// The file names of apt's lists: the URI without its scheme, '/' as '_'.
Result<std::vector<Fields>> read_releases(const std::string& lists) {
  const Fd dir = TRY(open_directory(lists));
  const std::vector<std::string> names = TRY(list_directory(dir.get()));
  std::vector<Fields> releases;
  for (const auto& name : names) {
    if (!name.ends_with("_InRelease") && !name.ends_with("_Release")) continue;
    const std::string text = TRY(read_file_at(dir.get(), name, kMaxRelease));
    for (auto& stanza : parse_stanzas(text)) {
      if (!stanza.contains("Codename")) continue;
      stanza["file"] = name;
      releases.push_back(std::move(stanza));
    }
  }
  return releases;
}

// The part of a list's file name that says which source it is of.
std::string list_name_of(const AptSource& source) {
  std::string name = source.uri;
  if (const auto scheme = name.find("://"); scheme != std::string::npos) name.erase(0, scheme + 3);
  if (const auto user = name.find('@'); user != std::string::npos) name.erase(0, user + 1);
  name += "/dists/" + source.suite + "/";
  std::ranges::replace(name, '/', '_');
  return name;
}

}  // namespace

Result<PrivateApt> PrivateApt::make(const Scratch& scratch, std::vector<AptSource> sources,
                                    const Limits& limits) {
  PrivateApt apt(scratch, std::move(sources), limits);
  for (const auto& source : apt.sources_) {
    if (source.suite.find('-') == std::string::npos) apt.release_ = source.suite;
  }
  apt.root_ = TRY(scratch.folder("apt"));
  for (const char* name : {"apt/etc", "apt/lists", "apt/lists/partial", "apt/archives",
                           "apt/archives/partial", "apt/stand-in"}) {
    TRY(scratch.folder(name));
  }
  const CommandOutput dump = TRY_CONTEXT(run_checked({.argv = {"apt-config", "dump"}}),
                                         "cannot read this machine's apt configuration");
  TRY(apt.write_configuration(apt_network_settings(dump.out)));
  TRY(apt.write_sources());
  return apt;
}

Status PrivateApt::write_configuration(const std::string& network_settings) {
  const std::string keys = "/etc/apt/";
  std::string text = fmt::format(
      "Dir \"{0}\";\n"
      "Dir::State \"{0}\";\nDir::State::lists \"{0}/lists\";\nDir::State::status \"{0}/status\";\n"
      "Dir::Cache \"{0}\";\nDir::Cache::archives \"{0}/archives\";\nDir::Log \"{0}\";\n"
      "Dir::Etc \"{0}/etc\";\nDir::Etc::SourceList \"{0}/etc/debian.sources\";\n"
      "Dir::Etc::SourceParts \"/dev/null\";\nDir::Etc::Parts \"/dev/null\";\n"
      "Dir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"/dev/null\";\n"
      // The machine's own keys, and its passwords for mirrors that want one.
      "Dir::Etc::Trusted \"{1}trusted.gpg\";\nDir::Etc::TrustedParts \"{1}trusted.gpg.d\";\n"
      "Dir::Etc::Netrc \"{1}auth.conf\";\nDir::Etc::NetrcParts \"{1}auth.conf.d\";\n"
      "APT::Architecture \"{2}\";\nAPT::Architectures {{ \"{2}\"; }};\n"
      "APT::Install-Recommends \"false\";\nAPT::Install-Suggests \"false\";\n"
      "APT::Get::Assume-Yes \"true\";\nAcquire::Languages \"none\";\n"
      "Acquire::Retries \"3\";\nAcquire::http::Timeout \"20\";\nAcquire::https::Timeout \"20\";\n",
      root_, keys, kArchitecture);
  text += network_settings;
  TRY(write_text(root_ + "/status", ""));
  return write_text(root_ + "/apt.conf", text);
}

Status PrivateApt::write_sources() {
  std::string text = to_deb822(sources_);
  text += fmt::format("Types: deb\nURIs: copy:{}/stand-in\nSuites: ./\nTrusted: yes\n", root_);
  if (!exists_at(AT_FDCWD, root_ + "/stand-in/Packages")) {
    const std::string deb = TRY(make_stand_in_package(root_ + "/stand-in"));
    const std::string control = TRY(read_deb_control(deb));
    const std::string bytes = TRY(read_file(deb, 1U << 20U));
    TRY(write_text(root_ + "/stand-in/Packages",
                   fmt::format("{}Filename: ./{}.deb\nSize: {}\nSHA256: {}\n", control,
                               kStandInPackage, bytes.size(), sha256_hex(bytes))));
  }
  return write_text(root_ + "/etc/debian.sources", text);
}

Result<std::string> PrivateApt::apt(const std::vector<std::string>& argv) const {
  Command command;
  command.argv = argv;
  command.environment = fetch_environment();
  command.extra_environment = {"APT_CONFIG=" + root_ + "/apt.conf", "LC_ALL=C.UTF-8"};
  command.max_output = 64U << 20U;
  limits_.apply_to(command);
  CommandOutput output = TRY(run_checked(command));
  return std::move(output.out);
}

Status PrivateApt::update() {
  const auto explain = [](Error error) {
    return tl::unexpected(
        std::move(error)
            .within("cannot fetch the package lists of this machine's apt sources")
            .with_hint("check that `apt-get update` works on this machine"));
  };
  // apt calls it success when a list could not be fetched and there is no older one.
  auto updated = apt({"apt-get", "update", "-q", "--error-on=any"});
  if (!updated) {
    if (updated.error().kind() != ErrorKind::kFailed) return tl::unexpected(updated.error());
    return explain(std::move(updated).error());
  }
  const std::vector<Fields> releases = TRY(read_releases(root_ + "/lists"));
  const auto is_debian = [&](const AptSource& source) {
    const std::string name = list_name_of(source);
    return std::ranges::any_of(releases, [&](const Fields& fields) {
      const auto origin = fields.find("Origin");
      const auto& codename = fields.at("Codename");
      return fields.at("file").starts_with(name) && origin != fields.end() &&
             origin->second == "Debian" && codename.starts_with(release_);
    });
  };
  const auto strangers =
      std::ranges::partition(sources_, [&](const auto& source) { return is_debian(source); });
  for (const auto& source : strangers) {
    log::info("not an apt source of Debian {}: {} {}", release_, source.uri, source.suite);
  }
  if (strangers.empty()) return {};
  sources_.erase(strangers.begin(), strangers.end());
  if (std::ranges::none_of(sources_, [&](const auto& s) { return s.suite == release_; })) {
    return fail(ErrorKind::kMissing,
                "none of this machine's apt sources is a mirror of Debian {}: their Release files "
                "name another origin",
                release_);
  }
  TRY(write_sources());
  updated = apt({"apt-get", "update", "-q", "--error-on=any"});
  if (!updated) return explain(std::move(updated).error());
  return {};
}

Result<std::uint64_t> PrivateApt::lists_time() const {
  const std::vector<Fields> releases = TRY(read_releases(root_ + "/lists"));
  std::uint64_t newest = 0;
  for (const auto& release : releases) {
    const auto date = release.find("Date");
    tm parts{};
    if (date == release.end() ||
        ::strptime(date->second.c_str(), "%a, %d %b %Y %H:%M:%S", &parts) == nullptr) {
      continue;
    }
    newest = std::max(newest, static_cast<std::uint64_t>(std::max<time_t>(::timegm(&parts), 0)));
  }
  if (newest == 0) return fail("no package list of this machine's apt sources has a date");
  return newest;
}

Result<std::vector<LockedPackage>> PrivateApt::resolve(const std::vector<std::string>& names) {
  std::vector<std::string> argv{"apt-get",      "install",    "-qq",
                                "--print-uris", "?essential", kStandInPackage};
  argv.insert(argv.end(), names.begin(), names.end());
  auto listed = apt(argv);
  if (!listed) {
    if (listed.error().kind() != ErrorKind::kFailed) return tl::unexpected(listed.error());
    return tl::unexpected(
        std::move(listed).error().within("cannot choose the packages of the image"));
  }

  // 'URI' name_version_architecture.deb size hash
  std::map<std::string, std::string> uris;  // "name=version" -> URI
  std::vector<std::string> show{"apt-cache", "show"};
  for (const auto& line : split_lines(*listed)) {
    if (!line.starts_with('\'')) continue;
    const auto end = line.find('\'', 1);
    const auto words = split(line.substr(std::min(end + 2, line.size())), ' ');
    const auto parts = split(percent_decoded(words[0]), '_');
    if (end == std::string::npos || parts.size() != 3) {
      return fail("apt-get printed a line that is not understood: {}", escape_line(line));
    }
    if (parts[0] == kStandInPackage) continue;
    const std::string key = parts[0] + "=" + parts[1];
    uris[key] = line.substr(1, end - 1);
    show.push_back(key);
  }
  const std::string details = TRY(apt(show));

  std::vector<LockedPackage> packages;
  const auto security = mirrors(true);
  for (const auto& fields : parse_stanzas(details)) {
    const auto field = [&](const std::string& name) {
      const auto found = fields.find(name);
      return found == fields.end() ? std::string() : found->second;
    };
    LockedPackage package{.name = field("Package"),
                          .version = field("Version"),
                          .architecture = field("Architecture"),
                          .sha256 = field("SHA256"),
                          .size = parse_unsigned(field("Size")).value_or(0),
                          .path = field("Filename")};
    const auto uri = uris.extract(package.name + "=" + package.version);
    if (uri.empty()) continue;  // the same version from a second source
    package.security = !security.empty() && uri.mapped().starts_with(security.front() + "/pool/") &&
                       security.front() != mirrors(false).front();
    packages.push_back(std::move(package));
  }
  if (!uris.empty()) return fail("apt-cache shows no package {}", uris.begin()->first);
  std::ranges::sort(packages, {}, &LockedPackage::name);
  return packages;
}

std::vector<std::string> PrivateApt::mirrors(bool security) const {
  std::vector<std::string> uris;
  for (const auto& source : sources_) {
    if (source.suite.ends_with("-security") == security) uris.push_back(source.uri);
  }
  return uris;
}

Status PrivateApt::fetch(const std::vector<LockedPackage>& packages, const std::string& cache,
                         Progress& progress) {
  const Fd cache_dir = TRY(open_directory(cache));
  std::vector<const LockedPackage*> missing;
  std::uint64_t total = 0;
  for (const auto& package : packages) {
    if (exists_at(cache_dir.get(), package.sha256 + ".deb")) continue;
    missing.push_back(&package);
    total += package.size;
  }
  log::info("{} of {} packages are to be fetched: {}", missing.size(), packages.size(),
            format_size(total));
  const std::string folder = TRY(scratch_->folder("fetched"));
  for (const bool swap_mirrors : {false, true}) {
    if (missing.empty()) break;
    const auto fetched = fetch_from(missing, swap_mirrors, folder, progress);
    std::vector<const LockedPackage*> still;
    for (const auto* package : missing) {
      const std::string name = package->sha256 + ".deb";
      const std::string path = folder + "/" + name;
      const Fd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!file || TRY(sha256_hex_of_file(file.get())) != package->sha256) {
        still.push_back(package);
        continue;
      }
      // Into the cache under another name first: copying may be cut short.
      std::error_code error;
      const std::string part = cache + "/" + name + ".part";
      fs::copy_file(path, part, fs::copy_options::overwrite_existing, error);
      if (!error) fs::permissions(part, fs::perms(0644), error);
      if (!error) fs::rename(part, cache + "/" + name, error);
      if (error) return fail("cannot keep a package in {}: {}", cache, error.message());
      fs::remove(path, error);
    }
    missing = std::move(still);
    if (missing.empty()) break;
    if (!fetched && fetched.error().kind() != ErrorKind::kFailed) return fetched;
    if (!swap_mirrors) continue;
    auto error =
        fetched ? Error(ErrorKind::kFailed, "they are not what the lock says") : fetched.error();
    return tl::unexpected(
        std::move(error)
            .within(fmt::format("cannot fetch {} packages, such as {} {}", missing.size(),
                                missing.front()->name, missing.front()->version))
            .with_hint("check that the network is up. Mirrors drop old versions: make a newer lock "
                       "with `agent-vm image lock`"));
  }
  return {};
}

Status PrivateApt::fetch_from(const std::vector<const LockedPackage*>& missing, bool swap_mirrors,
                              const std::string& folder, Progress& progress) {
  Command command;
  // apt-helper prints what it got on stdout; the lines are wanted as they come.
  command.argv = {"sh",           "-c", "exec \"$0\" \"$@\" >&2",
                  kAptHelper,     "-o", "APT::Sandbox::User=root",
                  "download-file"};
  for (const auto* package : missing) {
    auto uris = mirrors(package->security != swap_mirrors);
    if (uris.empty()) uris = mirrors(package->security == swap_mirrors);
    std::string uri = uris.front();
    if (uri.starts_with("file:")) uri.replace(0, 5, "copy:");
    command.argv.push_back(uri + "/" + package->path);
    command.argv.push_back(folder + "/" + package->sha256 + ".deb");
    command.argv.push_back("SHA256:" + package->sha256);
  }
  command.environment = fetch_environment();
  command.extra_environment = {"APT_CONFIG=" + root_ + "/apt.conf", "LC_ALL=C.UTF-8"};
  limits_.apply_to(command);
  std::size_t got = 0;
  command.on_error_line = [&](std::string_view line) {
    if (!line.starts_with("Get:")) return;
    ++got;
    progress.fraction(static_cast<double>(got) / static_cast<double>(missing.size()));
  };
  TRY(run_checked(command));
  return {};
}

Result<std::string> make_stand_in_package(const std::string& folder) {
  const std::string tree = folder + "/tree";
  std::error_code error;
  fs::create_directories(tree + "/DEBIAN", error);
  if (error) return fail("cannot make {}: {}", tree, error.message());
  // dpkg-deb refuses a control folder that a strict umask made unreadable.
  fs::permissions(tree, fs::perms(0755), error);
  fs::permissions(tree + "/DEBIAN", fs::perms(0755), error);
  TRY(write_text(tree + "/DEBIAN/control",
                 fmt::format("Package: {}\nVersion: 1\nArchitecture: all\n"
                             "Maintainer: agent-vm <agent-vm@localhost>\n"
                             "Provides: linux-initramfs-tool\n"
                             "Description: the initramfs of this guest is made on its host\n",
                             kStandInPackage)));
  const std::string deb = fmt::format("{}/{}.deb", folder, kStandInPackage);
  TRY(run_checked({.argv = {"dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, deb},
                   .extra_environment = {"SOURCE_DATE_EPOCH=0"}}));
  fs::remove_all(tree, error);
  return deb;
}

}  // namespace agent_vm
