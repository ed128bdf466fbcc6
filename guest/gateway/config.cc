#include "gateway/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/text.h"

namespace agent_vm::gateway {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxConfigBytes = 1U << 20;
constexpr std::size_t kMinTokenBytes = 16;

template <typename... Args>
tl::unexpected<Error> invalid(fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(
      Error(ErrorKind::kInvalidInput, fmt::format(format, std::forward<Args>(args)...)));
}

Status check_keys(const Json& object, const std::string& where,
                  const std::vector<std::string>& known) {
  if (!object.is_object()) return invalid("{} must be an object", where);
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const auto close = nearest(key, known);
    return invalid(
        "{} has an unknown key \"{}\"{}", where, escape_line(key),
        close ? "; did you mean \"" + *close + "\"?" : "; known are " + join(known, ", "));
  }
  return {};
}

Status read_string(const Json& object, const char* key, std::string& into) {
  if (!object.contains(key)) return {};
  if (!object.at(key).is_string()) return invalid("\"{}\" must be a string", key);
  into = object.at(key);
  if (into.find('\0') != std::string::npos) return invalid("\"{}\" contains a NUL byte", key);
  return {};
}

Result<std::vector<std::string>> read_strings(const Json& object, const char* key,
                                              std::vector<std::string> fallback) {
  if (!object.contains(key)) return fallback;
  const Json& list = object.at(key);
  const bool strings = list.is_array() && std::all_of(list.begin(), list.end(),
                                                      [](const Json& i) { return i.is_string(); });
  if (!strings) return invalid("\"{}\" must be a list of strings", key);
  return list.get<std::vector<std::string>>();
}

template <typename T>
Status read_number(const Json& object, const char* key, std::uint64_t minimum,
                   std::uint64_t maximum, T& into) {
  if (!object.contains(key)) return {};
  const Json& value = object.at(key);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() < minimum ||
      value.get<std::uint64_t>() > maximum) {
    return invalid("\"{}\" must be a whole number from {} to {}, not {}", key, minimum, maximum,
                   value.dump());
  }
  into = T(value.get<std::uint64_t>());
  return {};
}

Status check_server_name(const std::string& name) {
  const bool valid =
      !name.empty() && name.size() <= 64 && name.front() != '-' &&
      std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      });
  if (!valid) {
    return invalid("\"{}\" cannot name a server: use a-z, 0-9, - and _, at most 64",
                   escape_line(name));
  }
  if (name == kWorkspaceServer) {
    return invalid("the server \"{}\" is built in; give yours another name", name);
  }
  return {};
}

Result<StdioServerConfig> read_server(const Json& json, const std::string& where) {
  TRY(check_keys(json, where, {"command", "env", "cwd"}));
  StdioServerConfig server;
  server.command = TRY_CONTEXT(read_strings(json, "command", {}), "{}", where);
  if (server.command.empty() || server.command.front().empty()) {
    return invalid("{} needs a \"command\": the program and its arguments", where);
  }
  TRY_CONTEXT(read_string(json, "cwd", server.cwd), "{}", where);
  if (!server.cwd.empty() && server.cwd.front() != '/') {
    return invalid("{}: \"cwd\" must be an absolute path, not \"{}\"", where,
                   escape_line(server.cwd));
  }
  if (!json.contains("env")) return server;
  if (!json.at("env").is_object()) return invalid("{}: \"env\" must be an object", where);
  for (const auto& [key, value] : json.at("env").items()) {
    if (!value.is_string() || key.empty() || key.find('=') != std::string::npos) {
      return invalid("{}: \"env\" maps names to strings; \"{}\" does not", where, escape_line(key));
    }
    server.environment[key] = value;
  }
  return server;
}

Status read_limits(const Json& json, Limits& limits) {
  TRY(check_keys(json, "\"limits\"",
                 {"max_body_bytes", "max_line_bytes", "max_sessions", "max_processes",
                  "max_connections", "idle_timeout_s", "client_timeout_s", "start_timeout_s"}));
  TRY(read_number(json, "max_body_bytes", 1024, 1U << 30, limits.max_body_bytes));
  TRY(read_number(json, "max_line_bytes", 1024, 1U << 30, limits.max_line_bytes));
  TRY(read_number(json, "max_sessions", 1, 10000, limits.max_sessions));
  TRY(read_number(json, "max_processes", 1, 10000, limits.max_processes));
  TRY(read_number(json, "max_connections", 1, 10000, limits.max_connections));
  TRY(read_number(json, "idle_timeout_s", 1, 86400U * 365, limits.idle_timeout));
  TRY(read_number(json, "client_timeout_s", 1, 3600, limits.client_timeout));
  return read_number(json, "start_timeout_s", 1, 3600, limits.start_timeout);
}

Result<Config> read_config(const Json& json) {
  TRY(check_keys(json, "the configuration",
                 {"address", "port", "token_file", "allowed_origins", "allowed_hosts",
                  "default_server", "workspace", "servers", "state_directory", "limits"}));
  Config config;
  TRY(read_string(json, "address", config.address));
  TRY(read_number(json, "port", 0, 65535, config.port));
  TRY(read_string(json, "token_file", config.token_file));
  if (config.token_file.empty()) return invalid("the configuration needs a \"token_file\"");
  config.origins = TRY_CONTEXT(
      http::OriginPolicy::make(TRY(read_strings(json, "allowed_origins", {"https://claude.ai"}))),
      "\"allowed_origins\"");
  config.hosts = TRY_CONTEXT(http::HostPolicy::make(TRY(read_strings(
                                 json, "allowed_hosts", {"localhost", "127.0.0.1", "[::1]"}))),
                             "\"allowed_hosts\"");
  TRY(read_string(json, "state_directory", config.state_directory));
  TRY(read_string(json, "default_server", config.default_server));
  if (json.contains("workspace")) {
    TRY(check_keys(json.at("workspace"), "\"workspace\"", {"root"}));
    TRY_CONTEXT(read_string(json.at("workspace"), "root", config.workspace_root), "\"workspace\"");
  }
  if (!config.workspace_root.starts_with('/')) {
    return invalid("\"workspace\": \"root\" must be an absolute path, not \"{}\"",
                   escape_line(config.workspace_root));
  }
  if (json.contains("servers")) {
    if (!json.at("servers").is_object()) return invalid("\"servers\" must be an object");
    for (const auto& [name, server] : json.at("servers").items()) {
      TRY(check_server_name(name));
      config.servers[name] = TRY(read_server(server, "the server \"" + name + "\""));
    }
  }
  if (config.default_server != kWorkspaceServer &&
      config.servers.count(config.default_server) == 0) {
    std::vector<std::string> names{std::string(kWorkspaceServer)};
    for (const auto& [name, server] : config.servers) names.push_back(name);
    const auto close = nearest(config.default_server, names);
    return invalid(
        "\"default_server\" names no server: \"{}\"{}", escape_line(config.default_server),
        close ? "; did you mean \"" + *close + "\"?" : "; there are " + join(names, ", "));
  }
  if (json.contains("limits")) TRY(read_limits(json.at("limits"), config.limits));
  return config;
}

Result<std::string> read_small_file(const Fd& fd, const std::string& path) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read {}", path);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > kMaxConfigBytes) return invalid("{} is larger than 1 MiB", path);
  }
}

}  // namespace

Result<Config> parse_config(std::string_view text) {
  try {
    return read_config(Json::parse(text));
  } catch (const Json::exception& exception) {  // carries line and column
    return invalid("not valid JSON: {}", escape_line(exception.what()));
  }
}

Result<Config> load_config(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open the configuration {}", path);
  const std::string text = TRY(read_small_file(fd, path));
  return TRY_CONTEXT(parse_config(text), "{}", path);
}

Result<std::string> load_token(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot open the token file {}", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "cannot look at {}", path);
  if (!S_ISREG(info.st_mode) || (info.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)) != 0) {
    return invalid("the token file {} has the mode {:04o}; it must be a file with 0600 or 0640",
                   path, info.st_mode & 07777);
  }
  const std::string text = TRY(read_small_file(fd, path));
  std::string token(trim(text.substr(0, text.find('\n'))));
  const bool visible =
      std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 127; });
  // Its value must not appear in a message.
  if (token.size() < kMinTokenBytes || !visible) {
    return invalid("the token in {} must have at least {} visible ASCII characters", path,
                   kMinTokenBytes);
  }
  return token;
}

}  // namespace agent_vm::gateway
