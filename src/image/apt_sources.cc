#include "image/apt_sources.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxFile = 1U << 20U;

// What is kept of a source besides where it is; the names are those of deb822, and lower-cased they
// are those of the one-line style.
constexpr std::array<std::string_view, 7> kOptions{
    "Signed-By",       "Trusted",        "Check-Valid-Until", "Valid-Until-Min",
    "Valid-Until-Max", "Allow-Insecure", "Allow-Weak"};

std::optional<std::string> option_name(std::string_view key) {
  for (const auto& name : kOptions) {
    if (lower(name) == lower(key)) return std::string(name);
  }
  return std::nullopt;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n') {
      if (!word.empty()) words.push_back(std::exchange(word, {}));
    } else {
      word += c;
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::string without_trailing_slash(std::string uri) {
  while (uri.ends_with('/')) uri.pop_back();
  return uri;
}

tl::unexpected<Error> bad(std::string_view file, std::size_t line, std::string_view why) {
  return fail(ErrorKind::kInvalidInput, "{}:{}: {}", file, line, why);
}

// Takes "[ a=b c=d ]" off the front of `line`.
Result<std::map<std::string, std::string>> take_options(std::string_view& line,
                                                        std::string_view file, std::size_t number) {
  std::map<std::string, std::string> options;
  if (!line.starts_with('[')) return options;
  const auto end = line.find(']');
  if (end == std::string_view::npos) return bad(file, number, "'[' without ']'");
  for (const auto& word : words_of(line.substr(1, end - 1))) {
    const auto equals = word.find('=');
    if (equals == std::string::npos) {
      return bad(file, number, fmt::format("the option '{}' has no value", escape_line(word)));
    }
    if (auto name = option_name(word.substr(0, equals))) {
      options[*name] = word.substr(equals + 1);
    }
  }
  line = trim(line.substr(end + 1));
  return options;
}

using Stanza = std::map<std::string, std::string>;  // lower-case field -> value

void add_stanza(const Stanza& stanza, std::vector<AptSource>& sources) {
  const auto field = [&](const std::string& name) {
    const auto found = stanza.find(name);
    return found == stanza.end() ? std::string() : found->second;
  };
  const auto types = words_of(field("types"));
  if (std::ranges::find(types, "deb") == types.end()) return;
  const std::string enabled = lower(trim(field("enabled")));
  if (enabled == "no" || enabled == "false" || enabled == "0") return;
  AptSource source;
  source.components = words_of(field("components"));
  for (const auto& name : kOptions) {
    if (const auto value = field(lower(name)); !value.empty())
      source.options[std::string(name)] = value;
  }
  for (const auto& uri : words_of(field("uris"))) {
    for (const auto& suite : words_of(field("suites"))) {
      source.uri = without_trailing_slash(uri);
      source.suite = suite;
      sources.push_back(source);
    }
  }
}

// "trixie-security" -> "bookworm-security"; nothing when it is no suite of Debian's that we want.
std::optional<std::string> suite_for(std::string_view suite, std::string_view release) {
  constexpr std::array<std::string_view, 14> kReleases{
      "buster",       "bullseye",  "bookworm", "trixie",  "forky",    "duke",    "sid",
      "oldoldstable", "oldstable", "stable",   "testing", "unstable", "stretch", "experimental"};
  while (suite.ends_with('/')) suite.remove_suffix(1);
  const auto end = suite.find_first_of("-/");
  const std::string_view base = suite.substr(0, end);
  if (std::ranges::find(kReleases, base) == kReleases.end()) return std::nullopt;
  if (end == std::string_view::npos) return std::string(release);
  const std::string_view pocket = suite.substr(end + 1);
  if (pocket == "security" || suite.substr(end) == "/updates")
    return fmt::format("{}-security", release);
  if (pocket == "updates") return fmt::format("{}-updates", release);
  return std::nullopt;
}

}  // namespace

Result<std::vector<AptSource>> parse_one_line_sources(std::string_view text,
                                                      std::string_view file_name) {
  std::vector<AptSource> sources;
  std::size_t number = 0;
  for (const auto& raw : split_lines(text)) {
    ++number;
    std::string_view line = trim(std::string_view(raw).substr(0, raw.find('#')));
    if (line.empty()) continue;
    const auto type = line.substr(0, line.find_first_of(" \t["));
    if (type != "deb" && type != "deb-src") {
      return bad(file_name, number, fmt::format("'{}' is no type of source", escape_line(type)));
    }
    line = trim(line.substr(type.size()));
    auto options = TRY(take_options(line, file_name, number));
    if (type == "deb-src" || line.starts_with("cdrom:")) continue;
    auto words = words_of(line);
    if (words.size() < 2) return bad(file_name, number, "a source needs a URI and a suite");
    sources.push_back({.uri = without_trailing_slash(words[0]),
                       .suite = words[1],
                       .components = {words.begin() + 2, words.end()},
                       .options = std::move(options)});
  }
  return sources;
}

Result<std::vector<AptSource>> parse_deb822_sources(std::string_view text,
                                                    std::string_view file_name) {
  std::vector<AptSource> sources;
  Stanza stanza;
  std::string last;
  std::size_t number = 0;
  for (const auto& line : split_lines(text)) {
    ++number;
    if (line.starts_with('#')) continue;
    if (trim(line).empty()) {
      add_stanza(std::exchange(stanza, {}), sources);
      last.clear();
    } else if (line.starts_with(' ') || line.starts_with('\t')) {
      if (last.empty()) return bad(file_name, number, "a continued line that continues nothing");
      stanza[last] += "\n" + line;
    } else {
      const auto colon = line.find(':');
      if (colon == std::string::npos) return bad(file_name, number, "expected 'Field: value'");
      last = lower(trim(std::string_view(line).substr(0, colon)));
      stanza[last] = trim(std::string_view(line).substr(colon + 1));
    }
  }
  add_stanza(stanza, sources);
  return sources;
}

std::string to_deb822(const std::vector<AptSource>& sources) {
  std::string text;
  for (const auto& source : sources) {
    text += fmt::format("Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n", source.uri,
                        source.suite, join(source.components, " "));
    for (const auto& [name, value] : source.options) text += fmt::format("{}: {}\n", name, value);
    text += "\n";
  }
  return text;
}

Result<std::vector<AptSource>> read_machine_sources(const std::string& etc_apt) {
  std::vector<AptSource> all;
  const auto add = [&](const std::string& path, bool deb822) -> Status {
    const std::string text = TRY(read_file(path, kMaxFile));
    auto parsed =
        TRY(deb822 ? parse_deb822_sources(text, path) : parse_one_line_sources(text, path));
    all.insert(all.end(), parsed.begin(), parsed.end());
    return {};
  };
  const Fd etc = TRY_CONTEXT(open_directory(etc_apt), "cannot read this machine's apt sources");
  if (exists_at(etc.get(), "sources.list")) TRY(add(etc_apt + "/sources.list", false));
  if (exists_at(etc.get(), "sources.list.d")) {
    const std::string parts = etc_apt + "/sources.list.d";
    const Fd dir = TRY(open_directory(parts));
    const std::vector<std::string> names = TRY(list_directory(dir.get()));
    for (const auto& name : names) {
      if (name.ends_with(".list")) TRY(add(parts + "/" + name, false));
      if (name.ends_with(".sources")) TRY(add(parts + "/" + name, true));
    }
  }
  return all;
}

Result<std::vector<AptSource>> debian_sources(const std::vector<AptSource>& sources,
                                              std::string_view release) {
  std::vector<AptSource> chosen;
  std::set<std::pair<std::string, std::string>> seen;
  for (const auto& source : sources) {
    if (std::ranges::find(source.components, "main") == source.components.end()) continue;
    const auto suite = suite_for(source.suite, release);
    if (!suite || !seen.emplace(source.uri, *suite).second) continue;
    AptSource debian = source;
    debian.suite = *suite;
    debian.components = {"main"};
    chosen.push_back(std::move(debian));
  }
  if (std::ranges::none_of(chosen, [&](const auto& s) { return s.suite == release; })) {
    return tl::unexpected(
        Error(ErrorKind::kMissing,
              fmt::format("none of this machine's apt sources is a Debian mirror, and the image is "
                          "Debian {}",
                          release))
            .with_hint(fmt::format("add a source of Debian with the suite {} and the component "
                                   "main to /etc/apt/sources.list.d (see: man sources.list)",
                                   release)));
  }
  return chosen;
}

}  // namespace agent_vm
