#include "support/main.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/text.h"
#include "support/options.h"
#include "support/program.h"
#include "support/sweep.h"
#include "support/vm.h"

namespace agent_vm::test {
namespace fs = std::filesystem;

TestOptions& options() {
  static TestOptions all;
  return all;
}

std::vector<std::string> passed_on() {
  std::vector<std::string> arguments;
  if (!options().timeout.empty())
    arguments.insert(arguments.end(), {"--timeout", options().timeout});
  if (options().debug) arguments.emplace_back("--debug");
  if (options().verbose) arguments.emplace_back("--verbose");
  return arguments;
}

namespace {

// Shows what is known about the VMs when a test fails, while they still exist.
class FailureReporter : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo& info) override {
    if (!info.result()->Failed()) return;
    for (const auto* vm : live_vms()) {
      std::printf("%s", vm->report().c_str());
      std::printf("kept: %s\n", vm->root().c_str());
      keep_directory(vm->root());
    }
    std::fflush(stdout);
  }
};

// Suites are dealt one by one, because a suite shares a VM.
std::string other_parts() {
  const auto& all = *testing::UnitTest::GetInstance();
  std::string suites;
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    if (i % options().part.second != options().part.first - 1)
      suites += fmt::format("{}{}.*", suites.empty() ? "-" : ":", all.GetTestSuite(i)->name());
  }
  return suites;
}

std::string to_gtest_filter(const std::vector<std::string>& filters) {
  std::string all;
  for (const auto& filter : filters) {
    const bool glob = filter.find_first_of("*?") != std::string::npos;
    all += (all.empty() ? "" : ":") + (glob ? filter : "*" + filter + "*");
  }
  return (all.empty() ? "*" : all) + other_parts();
}

void start_engine(const std::vector<std::string>& filters) {
  int argc = 1;
  std::array<char*, 2> argv{const_cast<char*>("agent-vm-integration-test"), nullptr};
  testing::InitGoogleTest(&argc, argv.data());
  testing::GTEST_FLAG(filter) = to_gtest_filter(filters);
  testing::GTEST_FLAG(print_time) = true;
}

struct Counts {
  int passed = 0;
  int failed = 0;
  int skipped = 0;
};

Counts count() {
  const auto& all = *testing::UnitTest::GetInstance();
  Counts counts{.failed = all.failed_test_count(), .skipped = all.skipped_test_count()};
  counts.passed = all.successful_test_count();
  // A suite whose set-up or tear-down failed has no test to count it.
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    if (all.GetTestSuite(i)->ad_hoc_test_result().Failed()) ++counts.failed;
  }
  return counts;
}

}  // namespace

void add_common_options(CLI::App& app) {
  std::error_code error;
  const auto self = fs::read_symlink("/proc/self/exe", error);
  options().agent_vm = (self.parent_path() / "agent-vm").string();
  app.add_option("--agent-vm", options().agent_vm, "the program under test")
      ->type_name("PATH")
      ->capture_default_str();
  app.add_option("--timeout", options().timeout, "passed on to agent-vm")->type_name("SECONDS");
  app.add_flag("-d,--debug", options().debug, "passed on to agent-vm");
  app.add_flag("-v,--verbose", options().verbose, "passed on to agent-vm");
  app.add_flag("--keep", options().keep, "leave every test's directory");
}

bool prepare_run() {
  if (::access(options().agent_vm.c_str(), X_OK) != 0) {
    std::fprintf(stderr, "error: there is no program %s\n", options().agent_vm.c_str());
    return false;
  }
  options().agent_vm = fs::absolute(options().agent_vm).string();
  const char* base = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): single-threaded
  std::string root = std::string(base == nullptr ? "/tmp" : base) + "/agent-vm-test-XXXXXX";
  if (::mkdtemp(root.data()) == nullptr) {
    std::fprintf(stderr, "error: cannot make %s\n", root.c_str());
    return false;
  }
  options().root = root;
  return true;
}

int list_tests(const std::vector<std::string>& filters) {
  start_engine(filters);
  testing::GTEST_FLAG(list_tests) = true;
  return RUN_ALL_TESTS();
}

int run_tests(const std::vector<std::string>& filters) {
  std::array<int, 2> pipe{};
  if (::pipe(pipe.data()) != 0) return 1;
  int status = run_guarded([&] {
    start_engine(filters);
    testing::UnitTest::GetInstance()->listeners().Append(new FailureReporter);
    const int result = RUN_ALL_TESTS();
    const Counts counts = count();
    if (::write(pipe[1], &counts, sizeof counts) != sizeof counts) return 1;
    return result;
  });
  ::close(pipe[1]);
  Counts counts;
  if (::read(pipe[0], &counts, sizeof counts) != sizeof counts) {
    std::printf("the tests ended before their end\n");
    ++counts.failed;
    status = 1;
  }
  for (const auto& line : sweep(options().root)) {
    std::printf("left over: %s\n", line.c_str());
    ++counts.failed;
    status = 1;
  }
  if (fs::exists(options().root)) std::printf("kept: %s\n", options().root.c_str());
  if (counts.passed + counts.failed + counts.skipped == 0) {
    std::printf("no test has such a name; see --list\n");
    status = 1;
  }
  std::printf("%d passed, %d failed, %d skipped\n", counts.passed, counts.failed, counts.skipped);
  return status == 0 && counts.failed == 0 ? 0 : 1;
}

}  // namespace agent_vm::test
