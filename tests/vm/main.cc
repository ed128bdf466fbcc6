#include "support/main.h"

int main(int argc, char** argv) {
  CLI::App app("Proves agent-vm's guarantees on real virtual machines.",
               "agent-vm-integration-test");
  agent_vm::test::add_common_options(app);
  bool list = false;
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
