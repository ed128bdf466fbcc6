#include "base/result.h"

#include <array>
#include <cstring>

namespace agent_vm {
namespace {

constexpr std::array<std::pair<ErrorKind, std::string_view>, 8> kNames{{
    {ErrorKind::kFailed, "failed"},
    {ErrorKind::kInvalidInput, "invalid_input"},
    {ErrorKind::kNotFound, "not_found"},
    {ErrorKind::kNotRunning, "not_running"},
    {ErrorKind::kTimeout, "timeout"},
    {ErrorKind::kMissing, "missing"},
    {ErrorKind::kInterrupted, "interrupted"},
    {ErrorKind::kInternal, "internal"},
}};

std::string format_location(const std::source_location& where) {
  std::string_view file = where.file_name();
  // Paths relative to the source tree: the machine that built us is nobody's business.
  for (const std::string_view root : {"/src/", "/guest/", "/tests/"}) {
    if (const auto at = file.rfind(root); at != std::string_view::npos) {
      file.remove_prefix(at + 1);
      break;
    }
  }
  return fmt::format("{}:{}", file, where.line());
}

}  // namespace

std::string_view to_string(ErrorKind kind) {
  for (const auto& [known, name] : kNames) {
    if (known == kind) return name;
  }
  return "internal";
}

ErrorKind error_kind_from_string(std::string_view name) {
  for (const auto& [kind, known] : kNames) {
    if (known == name) return kind;
  }
  return ErrorKind::kInternal;
}

Error::Error(ErrorKind kind, std::string message, std::source_location where)
    : kind_(kind), message_(std::move(message)) {
  trail_.push_back(format_location(where));
}

Error Error::within(std::string_view context, std::source_location where) && {
  message_ = fmt::format("{}: {}", context, message_);
  trail_.push_back(format_location(where));
  return std::move(*this);
}

Error Error::with_hint(std::string hint) && {
  hint_ = std::move(hint);
  return std::move(*this);
}

Error Error::with_evidence(std::vector<std::string> lines) && {
  evidence_ = std::move(lines);
  return std::move(*this);
}

Error Error::with_kind(ErrorKind kind) && {
  kind_ = kind;
  return std::move(*this);
}

void Error::passed_through(std::source_location where) {
  trail_.push_back(format_location(where));
}

std::string errno_text(int error_number) {
  std::array<char, 128> buffer{};
  return strerror_r(error_number, buffer.data(), buffer.size());
}

}  // namespace agent_vm
