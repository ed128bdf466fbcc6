#include "launch/package_sources.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "base/text.h"
#include "image/host_settings.h"
#include "image/store.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr const char* kCache = "package-sources.json";
constexpr const char* kDebianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg";
constexpr std::size_t kMostKey = 65536;

// What pip takes from its files and variables, and where it goes when they name nothing.
constexpr const char* kAskPip = R"py(
import json
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
configuration = Configuration(isolated=False)
configuration.load()
print(json.dumps({"settings": dict(configuration.items()), "index": PyPI.simple_url, "files": PyPI.file_storage_domain}))
)py";

std::string variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): single-threaded
  return value == nullptr ? "" : value;
}

bool decides_on_pip(std::string_view entry) {
  return entry.starts_with("PIP_INDEX_URL=") || entry.starts_with("PIP_EXTRA_INDEX_URL=") ||
         entry.starts_with("PIP_CONFIG_FILE=");
}

std::vector<std::string> asking_environment() {
  auto environment = fetch_environment();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (decides_on_pip(*entry)) environment.emplace_back(*entry);
  }
  return environment;
}

// Changes whenever one of the answers may change: asking takes a second, of every start.
std::string fingerprint(const std::vector<std::string>& environment) {
  const std::string home = variable("HOME");
  const std::string configuration = variable("XDG_CONFIG_HOME");
  std::vector<std::string> paths{home + "/.npmrc",
                                 "/etc/npmrc",
                                 "/usr/etc/npmrc",
                                 "/usr/local/etc/npmrc",
                                 "/usr/bin/npm",
                                 "/usr/local/bin/npm",
                                 "/etc/pip.conf",
                                 "/etc/xdg/pip",
                                 home + "/.pip/pip.conf",
                                 home + "/.config/pip/pip.conf",
                                 configuration + "/pip/pip.conf",
                                 variable("PIP_CONFIG_FILE"),
                                 "/usr/bin/python3",
                                 "/usr/local/bin/python3",
                                 "/etc/apt/apt.conf"};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/etc/apt/apt.conf.d", error))
    paths.push_back(entry.path());
  std::ranges::sort(paths);
  std::string seen = "1\n";  // of this code; raised when the form of the answers changes
  for (const auto& path : paths) {
    struct stat info {};
    if (path.empty() || ::stat(path.c_str(), &info) != 0) continue;
    seen += fmt::format("{} {} {} {} {}\n", path, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                        info.st_mtim.tv_nsec);
  }
  for (const auto& entry : environment) {
    if (entry.starts_with("npm_config_") || entry.starts_with("NPM_CONFIG_") ||
        entry.starts_with("PATH=") || entry.starts_with("HOME=") || decides_on_pip(entry)) {
      seen += entry + "\n";
    }
  }
  return sha256_hex(seen);
}

// Null when the program is not there, or says nothing that makes sense.
json ask(std::vector<std::string> argv, const std::vector<std::string>& environment,
         const Deadline& deadline) {
  const std::string name = argv[0];
  // Not in the repository: an .npmrc there is the repository's word, not the owner's.
  const auto asked = run_checked({.argv = std::move(argv),
                                  .environment = environment,
                                  .working_directory = "/",
                                  .deadline = deadline});
  if (!asked) {
    log::info("{} does not say where packages come from: {}", name, asked.error().message());
    return nullptr;
  }
  return json::parse(asked->out, nullptr, false);
}

void add_url(std::vector<std::string>& urls, std::string_view text) {
  const std::string url = plain_url(text);
  if (!url.empty() && std::ranges::find(urls, url) == urls.end()) urls.push_back(url);
}

json ask_npm(const std::vector<std::string>& environment, const Deadline& deadline) {
  json found = {{"registry", ""}, {"scopes", json::object()}};
  const json settings = ask({"npm", "config", "list", "--json"}, environment, deadline);
  if (!settings.is_object()) return found;
  for (const auto& [key, value] : settings.items()) {
    if (!value.is_string()) continue;
    const std::string url = plain_url(value.get<std::string>());
    if (key == "registry") found["registry"] = url;
    if (key.starts_with('@') && key.ends_with(":registry") && !url.empty() &&
        escape_line(key) == key && key.find_first_of("= ") == std::string::npos) {
      found["scopes"][key.substr(0, key.find(':'))] = url;
    }
  }
  return found;
}

json ask_pip(const std::vector<std::string>& environment, const Deadline& deadline) {
  json found = {{"index", ""}, {"extra", json::array()}, {"hosts", json::array()}};
  const json answer = ask({"python3", "-I", "-c", kAskPip}, environment, deadline);
  if (!answer.is_object() || !answer.contains("settings") || !answer["settings"].is_object())
    return found;
  const auto text = [](const json& value) {
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  std::string index;
  std::vector<std::string> extra;
  // Variables win over what is said for a command, and that over what is said for all.
  for (const auto* place : {"global.", "install.", ":env:."}) {
    const auto setting = [&](const char* name) {
      return text(answer["settings"].value(std::string(place) + name, json()));
    };
    if (const auto url = plain_url(setting("index-url")); !url.empty()) index = url;
    std::string more = setting("extra-index-url");
    std::ranges::replace(more, '\n', ' ');
    for (const auto& word : split(more, ' ')) add_url(extra, word);
  }
  if (index.empty()) {
    index = plain_url(text(answer.value("index", json())));
    found["hosts"].push_back(text(answer.value("files", json())));
  }
  found["index"] = index;
  found["extra"] = extra;
  return found;
}

std::string ask_apt(const std::vector<std::string>& environment, const Deadline& deadline) {
  const auto dump = run_checked(
      {.argv = {"apt-config", "dump"}, .environment = environment, .deadline = deadline});
  if (!dump) return "";
  std::string kept;
  for (const auto& line : split_lines(apt_network_settings(dump->out))) {
    // How this machine reaches the world is no business of the guest's, which has one way only.
    if (!line.starts_with("Acquire::http") && !line.starts_with("Acquire::ftp") &&
        !line.starts_with("Acquire::Force"))
      kept += line + "\n";
  }
  return kept;
}

json read_cache(const std::string& root, const std::string& wanted) {
  const auto text = read_file(root + "/" + kCache, 1U << 20U);
  const json cached = text ? json::parse(*text, nullptr, false) : json();
  return cached.is_object() && cached.value("fingerprint", json()) == wanted ? cached : json();
}

Status write_cache(const std::string& root, const json& answers) {
  const Fd folder = TRY(open_private_directory(root));
  return write_file_atomic(folder.get(), kCache, answers.dump() + "\n", 0600);
}

Result<json> ask_or_remember(const Deadline& deadline) {
  const ImageStore store = TRY(ImageStore::of_user());
  const auto environment = asking_environment();
  const std::string seen = fingerprint(environment);
  if (json cached = read_cache(store.root(), seen); cached.is_object()) return cached;
  json answers = {{"fingerprint", seen},
                  {"npm", ask_npm(environment, deadline)},
                  {"pip", ask_pip(environment, deadline)},
                  {"apt", ask_apt(environment, deadline)}};
  if (const auto written = write_cache(store.root(), answers); !written)
    log::warn("{}", written.error().message());
  return answers;
}

// What this user wrote; a file that somebody has spoilt means that nothing is known.
void take(const json& answers, PackageSources& sources) {
  try {
    sources.apt_settings = answers.at("apt").get<std::string>();
    sources.npm = answers.at("npm").at("registry").get<std::string>();
    answers.at("npm").at("scopes").get_to(sources.npm_scopes);
    sources.pip = answers.at("pip").at("index").get<std::string>();
    answers.at("pip").at("extra").get_to(sources.pip_extra);
    answers.at("pip").at("hosts").get_to(sources.pip_hosts);
  } catch (const json::exception& error) {
    log::warn("{} cannot be understood: {}", kCache, error.what());
    sources = {};
  }
}

// The guest has Debian's keys, and none of the host's other files.
void bring_key(AptSource& source) {
  std::string& key = source.options["Signed-By"];
  if (key.empty()) key = kDebianKeys;
  if (!key.starts_with('/') || key == kDebianKeys) return;
  const auto text = read_file(key, kMostKey);
  if (!text || !text->starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----")) {
    log::info("{} is not an armored key: the guest checks {} with Debian's own keys", key,
              source.uri);
    key = kDebianKeys;
    return;
  }
  key.clear();
  for (const auto& line : split_lines(*text)) key += line.empty() ? "\n ." : "\n " + line;
}

std::vector<AptSource> find_apt_sources() {
  auto machine = read_machine_sources("/etc/apt");
  auto debian = machine ? debian_sources(*machine, kImageRelease)
                        : Result<std::vector<AptSource>>(tl::unexpected(machine.error()));
  if (!debian) {
    log::info("@apt allows nothing: {}", debian.error().message());
    return {};
  }
  std::vector<AptSource> sources;
  for (auto& source : *debian) {
    source.uri = plain_url(source.uri);
    if (source.uri.empty()) continue;
    bring_key(source);
    sources.push_back(std::move(source));
  }
  return sources;
}

}  // namespace

std::string plain_url(std::string_view url) {
  if (escape_line(url) != url || url.find_first_of(" \"'\\#?") != std::string_view::npos ||
      host_of_url(url).empty())
    return "";
  const auto authority = url.find("://") + 3;
  const auto end = std::min(url.find('/', authority), url.size());
  const auto at = url.substr(0, end).rfind('@');
  if (at == std::string_view::npos || at < authority) return std::string(url);
  return std::string(url.substr(0, authority)) + std::string(url.substr(at + 1));
}

std::string host_of_url(std::string_view url) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!url.starts_with(scheme)) continue;
    std::string_view authority = url.substr(scheme.size());
    authority = authority.substr(0, authority.find_first_of("/?#"));
    if (const auto at = authority.rfind('@'); at != std::string_view::npos)
      authority.remove_prefix(at + 1);
    std::string host(authority.substr(0, authority.find(':')));
    for (char& c : host) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return host;
  }
  return "";
}

std::string path_of_url(std::string_view url) {
  const auto slash = url.find('/', url.find("://") + 3);
  if (host_of_url(url).empty() || slash == std::string_view::npos) return "";
  std::string path(url.substr(slash));
  while (path.ends_with('/')) path.pop_back();
  return path;
}

PackageSources find_package_sources(const Deadline& deadline) {
  PackageSources sources;
  if (const auto answers = ask_or_remember(deadline); answers) {
    take(*answers, sources);
  } else {
    log::warn("{}", answers.error().message());
  }
  sources.apt = find_apt_sources();
  return sources;
}

std::vector<std::string> apt_rules(const PackageSources& sources) {
  std::vector<std::string> rules;
  for (const auto& source : sources.apt)
    rules.push_back(
        fmt::format("GET,HEAD {}{}/*", host_of_url(source.uri), path_of_url(source.uri)));
  return rules;
}

std::vector<std::string> npm_rules(const PackageSources& sources) {
  std::vector<std::string> rules;
  const auto add = [&](const std::string& url) {
    if (url.empty()) return;
    // The archives of packages may lie anywhere on the host.
    rules.push_back(fmt::format("GET,HEAD {}", host_of_url(url)));
    rules.push_back(
        fmt::format("POST {}{}/-/npm/v1/security/*", host_of_url(url), path_of_url(url)));
  };
  add(sources.npm);
  for (const auto& [scope, url] : sources.npm_scopes) add(url);
  return rules;
}

std::vector<std::string> pip_rules(const PackageSources& sources) {
  std::vector<std::string> hosts = sources.pip_hosts;
  hosts.push_back(host_of_url(sources.pip));
  for (const auto& url : sources.pip_extra) hosts.push_back(host_of_url(url));
  std::vector<std::string> rules;
  for (const auto& host : hosts) {
    if (!host.empty()) rules.push_back("GET,HEAD " + host);
  }
  return rules;
}

json guest_package_settings(const PackageSources& sources) {
  constexpr const char* kHeading = "# Written by agent-vm at each start, from the host's own {}.\n";
  std::string npm;
  if (!sources.npm.empty()) npm += fmt::format("registry={}\n", sources.npm);
  for (const auto& [scope, url] : sources.npm_scopes)
    npm += fmt::format("{}:registry={}\n", scope, url);
  std::string pip = "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n";
  if (!sources.pip.empty()) pip += fmt::format("index-url = {}\n", sources.pip);
  if (!sources.pip_extra.empty())
    pip += fmt::format("extra-index-url = {}\n", join(sources.pip_extra, " "));
  return {{"apt_sources", fmt::format(kHeading, "apt sources") + to_deb822(sources.apt)},
          {"apt_settings", sources.apt_settings},
          {"npm", fmt::format(kHeading, "npm configuration") + npm},
          {"pip", fmt::format(kHeading, "pip configuration") + pip}};
}

}  // namespace agent_vm
