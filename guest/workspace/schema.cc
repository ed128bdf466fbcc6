#include "workspace/schema.h"

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace agent_vm::workspace {
namespace {

Json text(const char* description) {
  return {{"type", "string"}, {"description", description}};
}
Json flag(const char* description) {
  return {{"type", "boolean"}, {"description", description}, {"default", false}};
}
Json number(const char* description, int minimum, int maximum, int fallback) {
  return {{"type", "integer"},
          {"description", description},
          {"minimum", minimum},
          {"maximum", maximum},
          {"default", fallback}};
}
Json texts(const char* description) {
  return {{"type", "array"}, {"items", {{"type", "string"}}}, {"description", description}};
}
Json job() {
  return {{"type", "integer"},
          {"minimum", 1},
          {"maximum", 2147483647},
          {"description", "The number that exec gave"}};
}

enum class Effect { kReadOnly, kAdds, kDestructive };

Json tool(const char* name, const char* title, const char* description, Effect effect,
          bool idempotent, bool open_world, Json properties, std::vector<std::string> required) {
  Json annotations = {{"title", title}, {"readOnlyHint", effect == Effect::kReadOnly}};
  if (effect != Effect::kReadOnly) {
    annotations["destructiveHint"] = effect == Effect::kDestructive;
    annotations["idempotentHint"] = idempotent;
  }
  annotations["openWorldHint"] = open_world;
  Json schema = {{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  schema["additionalProperties"] = false;
  return {{"name", name},
          {"title", title},
          {"description", description},
          {"inputSchema", std::move(schema)},
          {"annotations", std::move(annotations)}};
}

Json make_exec_tools() {
  return Json::array(
      {tool("exec", "Run a command",
            "Runs a command in the workspace and returns its output (stdout and stderr together) "
            "and exit status. Give either command (for a shell) or argv (run as it is). A command "
            "that lasts longer than wait goes on in the background as a job: read on with "
            "exec_poll. Long output is shortened in the middle.",
            Effect::kDestructive, false, true,
            {{"command", text("A shell command line")},
             {"argv", texts("A program and its arguments, without a shell")},
             {"cwd", text("Directory to run in, relative to the workspace")},
             {"env",
              {{"type", "object"},
               {"additionalProperties", {{"type", "string"}}},
               {"description", "Variables to add to the environment"}}},
             {"stdin", text("Text for its standard input, which stays open")},
             {"wait", number("Seconds to wait before it goes to the background", 0, 50, 50)},
             {"timeout", number("Seconds after which it is ended; 0: never", 0, 86400, 0)}},
            {}),
       tool("exec_poll", "Read on from a job",
            "Waits until a job ends, or wait seconds, and returns the output since the last time.",
            Effect::kReadOnly, false, false,
            {{"job", job()}, {"wait", number("Seconds to wait at most", 0, 50, 10)}}, {"job"}),
       tool("exec_input", "Write to a job",
            "Writes text to a job's standard input (add the newline), then does what exec_poll "
            "does.",
            Effect::kDestructive, false, true,
            {{"job", job()},
             {"text", text("What to write")},
             {"close", flag("Close its standard input afterwards")},
             {"wait", number("Seconds to wait at most", 0, 50, 2)}},
            {"job"}),
       tool("exec_signal", "Signal a job",
            "Sends a signal to every process of a job: INT, TERM, KILL, HUP, QUIT, USR1, USR2 or "
            "WINCH.",
            Effect::kDestructive, true, false,
            {{"job", job()}, {"signal", text("The signal's name; TERM when left out")}}, {"job"})});
}

Json make_file_tools() {
  return Json::array(
      {tool("read", "Read a file",
            "Returns lines of a text file with their numbers, or the names in a directory.",
            Effect::kReadOnly, true, false,
            {{"path", text("File or directory, relative to the workspace")},
             {"offset", number("First line, from 1", 1, 2147483647, 1)},
             {"limit", number("Number of lines", 1, 100000, 2000)}},
            {"path"}),
       tool("write", "Write a file",
            "Makes a file with this content, or replaces it. Missing directories are made.",
            Effect::kDestructive, true, false,
            {{"path", text("File, relative to the workspace")},
             {"content", text("The whole content")}},
            {"path", "content"}),
       tool("edit", "Edit a file",
            "Replaces old_text by new_text in a file. old_text must match byte for byte and occur "
            "exactly once, unless replace_all is set.",
            Effect::kDestructive, false, false,
            {{"path", text("File, relative to the workspace")},
             {"old_text", text("Text that is there")},
             {"new_text", text("Text to put in its place")},
             {"replace_all", flag("Replace every occurrence")}},
            {"path", "old_text", "new_text"}),
       tool("apply_patch", "Apply a patch",
            "Changes several files at once, all or none: a unified diff (paths relative to the "
            "workspace, with a/ and b/), or a patch between the lines *** Begin Patch and *** End "
            "Patch with *** Add File, *** Update File and *** Delete File.",
            Effect::kDestructive, false, false, {{"patch", text("The patch")}}, {"patch"})});
}

Json make_search_tools() {
  return Json::array(
      {tool("glob", "Find files",
            "Lists files whose path matches a pattern such as **/*.ts, newest first. What "
            ".gitignore excludes is left out.",
            Effect::kReadOnly, true, false,
            {{"pattern", text("Glob pattern")},
             {"path", text("Directory to search; the workspace when left out")},
             {"limit", number("Number of files", 1, 10000, 200)}},
            {"pattern"}),
       tool("grep", "Search in files",
            "Searches files for a regular expression (ripgrep's). What .gitignore excludes is left "
            "out unless ignored_files is set.",
            Effect::kReadOnly, true, false,
            {{"pattern", text("Regular expression")},
             {"path", text("Directory or file; the workspace when left out")},
             {"glob", text("Only files whose path matches, such as *.{ts,tsx}")},
             {"mode",
              {{"type", "string"},
               {"enum", {"lines", "files", "count"}},
               {"default", "lines"},
               {"description", "Matching lines, file names, or the count in each file"}}},
             {"context", number("Lines to show around a match", 0, 50, 0)},
             {"limit", number("Lines of output", 1, 10000, 500)},
             {"ignore_case", flag("Ignore case")},
             {"literal", flag("The pattern is plain text")},
             {"multiline", flag("A match may span lines")},
             {"ignored_files", flag("Search also what .gitignore excludes")}},
            {"pattern"})});
}

Json make_git_tools() {
  return Json::array(
      {tool("git_diff", "Show changes",
            "Shows git's status and the differences in the working tree, in the index, or between "
            "revisions.",
            Effect::kReadOnly, true, false,
            {{"path", text("Directory of the repository; the workspace when left out")},
             {"range", text("Revision or range, such as HEAD~1 or main...HEAD")},
             {"staged", flag("What is staged, against HEAD")},
             {"stat", flag("Only names and counts")},
             {"paths", texts("Only these files")}},
            {}),
       tool("git_commit", "Commit",
            "Stages and commits these paths, or everything that changed, and returns the commit.",
            Effect::kAdds, false, false,
            {{"message", text("Commit message")},
             {"paths", texts("Only these files")},
             {"path", text("Directory of the repository; the workspace when left out")}},
            {"message"})});
}

const char* type_name(const Json& value) {
  return value.is_number_integer() ? "integer" : value.type_name();
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer") return value.is_number_integer();
  if (type == "array") return value.is_array();
  return value.is_object();
}

Status check_value(const std::string& name, const Json& value, const Json& schema) {
  const std::string type = schema.at("type");
  if (!has_type(value, type)) {
    return fail(ErrorKind::kInvalidInput, "the argument {} must be of type {}, not {}", name, type,
                type_name(value));
  }
  if (type == "integer") {
    const bool fits = !value.is_number_unsigned() || value.get<std::uint64_t>() <= 2147483647;
    const auto number = fits ? value.get<std::int64_t>() : 0;
    if (!fits || number < schema.at("minimum") || number > schema.at("maximum")) {
      return fail(ErrorKind::kInvalidInput, "the argument {} must be from {} to {}, not {}", name,
                  schema.at("minimum").dump(), schema.at("maximum").dump(), value.dump());
    }
  }
  if (schema.contains("enum")) {
    const Json& allowed = schema.at("enum");
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
      return fail(ErrorKind::kInvalidInput, "the argument {} must be one of {}", name,
                  allowed.dump());
    }
  }
  const bool all_strings = type != "array" && type != "object"
                               ? true
                               : std::all_of(value.begin(), value.end(),
                                             [](const Json& item) { return item.is_string(); });
  if (!all_strings) {
    return fail(ErrorKind::kInvalidInput, "the argument {} must hold only strings", name);
  }
  return {};
}

}  // namespace

const Json& tool_definitions() {
  static const Json kTools = [] {
    Json all = Json::array();
    for (const Json& group :
         {make_exec_tools(), make_file_tools(), make_search_tools(), make_git_tools()}) {
      all.insert(all.end(), group.begin(), group.end());
    }
    return all;
  }();
  return kTools;
}

Status check_arguments(const std::string& tool, const Json& arguments) {
  return check_arguments(tool_definitions(), tool, arguments);
}

Status check_arguments(const Json& definitions, const std::string& tool, const Json& arguments) {
  std::vector<std::string> names;
  const Json* schema = nullptr;
  for (const Json& definition : definitions) {
    names.push_back(definition.at("name"));
    if (definition.at("name") == tool) schema = &definition.at("inputSchema");
  }
  if (schema == nullptr) {
    const auto close = nearest(tool, names);
    return fail(ErrorKind::kNotFound, "unknown tool {}{}", escape_line(tool),
                close ? "; did you mean " + *close + "?" : "");
  }
  if (!arguments.is_object()) {
    return fail(ErrorKind::kInvalidInput, "the arguments must be an object");
  }
  const Json& properties = schema->at("properties");
  std::vector<std::string> known;
  for (const auto& [name, property] : properties.items()) known.push_back(name);
  for (const auto& [name, value] : arguments.items()) {
    if (!properties.contains(name)) {
      const auto close = nearest(name, known);
      return fail(ErrorKind::kInvalidInput, "{} has no argument {}{}", tool, escape_line(name),
                  close ? "; did you mean " + *close + "?" : "; it has " + join(known, ", "));
    }
    TRY(check_value(name, value, properties.at(name)));
  }
  if (schema->contains("required")) {
    for (const std::string name : schema->at("required")) {
      if (!arguments.contains(name)) {
        return fail(ErrorKind::kInvalidInput, "{} needs the argument {}", tool, name);
      }
    }
  }
  return {};
}

}  // namespace agent_vm::workspace
