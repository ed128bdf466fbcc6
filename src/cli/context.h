// What every verb gets: the global options, the output, and where it was called.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "cli/output.h"
#include "state/state_directory.h"

namespace agent_vm {

struct Context {
  Output out;
  std::string working_directory;  // absolute, where the command was called

  // Global options.
  std::string state_dir;  // as given; empty: the default
  std::string timeout_text;
  bool verbose = false;
  bool debug = false;

  // What stood behind "--" (exec).
  std::vector<std::string> command;

  // The verb that was chosen; the result is the exit status.
  std::function<Result<int>()> action;

  // --timeout, or what the verb takes when there is none; counted from this call.
  Result<Deadline> deadline(std::optional<std::chrono::milliseconds> fallback = {}) const;

  Result<std::string> state_path() const;
  Result<StateDirectory> state() const;  // an existing one
  Result<StateDirectory> state_or_new() const;
  // The VM that the user means; an empty argument is an absent one.
  Result<VmDirectory> vm(const std::string& argument) const;
};

// Makes a verb. Its options also accept the global ones behind it; `examples` end its --help.
CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& description,
                   const std::string& examples);
// The optional positional VM; see Context::vm().
void add_vm_argument(CLI::App& verb, std::string& vm);
void add_json_flag(CLI::App& verb, Context& context);
// Runs `action` (with the verb's options, which it owns) when the verb is chosen.
void on_run(CLI::App& verb, Context& context, std::function<Result<int>()> action);

}  // namespace agent_vm
