#include "support/main.h"

#include <unistd.h>

#include "support/options.h"

int main(int argc, char** argv) {
  CLI::App app("Proves agent-vm's guarantees on real virtual machines.",
               "agent-vm-integration-test");
  agent_vm::test::add_common_options(app);
  bool list = false;
  auto& options = agent_vm::test::options();
  app.add_option("--part", options.part, "only these suites: 1/2 and 2/2 are all of them")
      ->delimiter('/')
      ->check(CLI::PositiveNumber)
      ->type_name("N/M");
  app.add_option("--turns", options.turns, "run beside who names the same file, see turn.h")
      ->check([](const std::string& path) -> std::string {
        if (::access(path.c_str(), R_OK | W_OK) == 0) return "";
        return "cannot read and write " + path;
      })
      ->type_name("FILE");
  app.add_option("--user", options.user,
                 "an ordinary user with agent-vm in ~/agent-vm and its image, for tests of root's")
      ->type_name("NAME");
  app.add_flag("--list", list, "print the names of the tests");
  std::vector<std::string> filters;
  app.add_option("FILTER", filters, "parts of names, or globs; left out: all tests");
  app.footer("Exit status: 0 all passed, 1 something failed, 2 wrong arguments.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (list) return agent_vm::test::list_tests(filters);
  return agent_vm::test::prepare_run() ? agent_vm::test::run_tests(filters) : 1;
}
