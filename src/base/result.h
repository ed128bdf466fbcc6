// Result<T>: a value or an Error. Errors are values that gather context on their way up and are
// turned into text once, where a person reads them (cli/) or a program does (control/).
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <source_location>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace agent_vm {

// What kind of failure this is. Each kind is one exit status of the command (cli/exit_code.h).
enum class ErrorKind {
  kFailed,        // an operation failed; the message says which
  kInvalidInput,  // the user's arguments or configuration are not acceptable
  kNotFound,      // no such VM, image or template
  kNotRunning,    // the VM has to run for this, and does not
  kTimeout,       // the deadline given by --timeout passed
  kMissing,       // this machine lacks something that agent-vm needs
  kInterrupted,   // SIGINT or SIGTERM ended the operation
  kInternal,      // a broken invariant: a bug in agent-vm
};

// Stable name of a kind, as it appears in --json ("invalid_input", ...).
std::string_view to_string(ErrorKind kind);
// The inverse; an unknown name is kInternal.
ErrorKind error_kind_from_string(std::string_view name);

class Error {
 public:
  Error(ErrorKind kind, std::string message,
        std::source_location where = std::source_location::current());

  // One sentence: what failed, with which value, and why.
  const std::string& message() const { return message_; }
  ErrorKind kind() const { return kind_; }
  // What to do next, or empty. Often a command line.
  const std::string& hint() const { return hint_; }
  // Lines that show what happened, such as the console's tail. Untrusted text: escape to print.
  const std::vector<std::string>& evidence() const { return evidence_; }
  // Source locations the error passed through, innermost first; shown by --debug.
  const std::vector<std::string>& trail() const { return trail_; }

  // Puts "context: " in front of the message.
  Error within(std::string_view context,
               std::source_location where = std::source_location::current()) &&;
  Error with_hint(std::string hint) &&;
  Error with_evidence(std::vector<std::string> lines) &&;
  Error with_kind(ErrorKind kind) &&;
  void passed_through(std::source_location where);

 private:
  ErrorKind kind_;
  std::string message_;
  std::string hint_;
  std::vector<std::string> evidence_;
  std::vector<std::string> trail_;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// return fail(kind, "cannot do {}: {}", ...);
template <typename... Args>
struct FormatWithLocation {
  template <std::convertible_to<std::string_view> S>
  consteval FormatWithLocation(const S& text,
                               std::source_location location = std::source_location::current())
      : format(text), where(location) {}
  fmt::format_string<Args...> format;
  std::source_location where;
};

template <typename... Args>
tl::unexpected<Error> fail(ErrorKind kind, FormatWithLocation<std::type_identity_t<Args>...> format,
                           Args&&... args) {
  return tl::unexpected<Error>(
      Error(kind, fmt::format(format.format, std::forward<Args>(args)...), format.where));
}

template <typename... Args>
tl::unexpected<Error> fail(FormatWithLocation<std::type_identity_t<Args>...> format,
                           Args&&... args) {
  return tl::unexpected<Error>(Error(
      ErrorKind::kFailed, fmt::format(format.format, std::forward<Args>(args)...), format.where));
}

// For a failed system call: appends strerror(errno). Read errno before anything can change it.
template <typename... Args>
tl::unexpected<Error> fail_errno(int error_number,
                                 FormatWithLocation<std::type_identity_t<Args>...> format,
                                 Args&&... args);

// strerror, thread-safe; "Permission denied".
std::string errno_text(int error_number);

template <typename... Args>
tl::unexpected<Error> fail_errno(int error_number,
                                 FormatWithLocation<std::type_identity_t<Args>...> format,
                                 Args&&... args) {
  return tl::unexpected<Error>(Error(
      ErrorKind::kFailed,
      fmt::format(format.format, std::forward<Args>(args)...) + ": " + errno_text(error_number),
      format.where));
}

}  // namespace agent_vm

// auto value = TRY(expression);  returns the error to the caller. Statement expressions are an
// extension that both supported compilers have; the alternative is a macro with two names.
#define TRY(...) AGENT_VM_TRY_AS(AGENT_VM_UNIQUE(try_result_), __VA_ARGS__)
#define AGENT_VM_TRY_AS(result, ...)                                  \
  ({                                                                  \
    auto&& result = (__VA_ARGS__);                                    \
    if (!result) {                                                    \
      result.error().passed_through(std::source_location::current()); \
      return tl::unexpected<::agent_vm::Error>(result.error());       \
    }                                                                 \
    ::agent_vm::detail::unwrap(std::move(result));                    \
  })

// TRY_CONTEXT(expression, "reading {}", path): as TRY, with a prefix for the message.
#define TRY_CONTEXT(expression, ...) \
  AGENT_VM_TRY_CONTEXT_AS(AGENT_VM_UNIQUE(try_result_), expression, __VA_ARGS__)
#define AGENT_VM_TRY_CONTEXT_AS(result, expression, ...)                       \
  ({                                                                           \
    auto&& result = (expression);                                              \
    if (!result) {                                                             \
      return tl::unexpected<::agent_vm::Error>(                                \
          ::agent_vm::Error(result.error()).within(fmt::format(__VA_ARGS__))); \
    }                                                                          \
    ::agent_vm::detail::unwrap(std::move(result));                             \
  })

// Nested uses must not shadow one another.
#define AGENT_VM_JOIN_(a, b) a##b
#define AGENT_VM_JOIN(a, b) AGENT_VM_JOIN_(a, b)
#define AGENT_VM_UNIQUE(prefix) AGENT_VM_JOIN(prefix, __COUNTER__)

namespace agent_vm::detail {
template <typename T>
requires(!std::is_void_v<T>) T unwrap(tl::expected<T, Error>&& result) {
  return std::move(*result);
}
inline void unwrap(tl::expected<void, Error>&&) {}
}  // namespace agent_vm::detail
