// Starts that resume a template: what is of the VM's own then, what lasts, and what happens when
// the template is not what it should be (S27).
#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using testing::HasSubstr;
using testing::Not;

class TemplateTest : public RunningVmTest {
 protected:
  // Of this VM's image: its folders, each of which is a template.
  static std::vector<std::string> templates() {
    std::vector<std::string> found;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(image_cache().directory + "/templates", none)) {
      if (!entry.path().filename().string().starts_with(".")) found.push_back(entry.path());
    }
    return found;
  }
  static bool resumed() {
    const std::string log = vm().file("logs/supervisor.log");
    return log.rfind("start: devices after") != std::string::npos &&
           log.rfind("start: devices after") > log.rfind("start: ports after");
  }
  // Not asked of the guest, unless something of it has to last.
  static Ran restart(const std::vector<std::string>& start = {},
                     const std::vector<std::string>& stop = {"--force"}) {
    EXPECT_TRUE(vm().stop(stop).ok());
    std::vector<std::string> arguments{"start", vm().name()};
    arguments.insert(arguments.end(), start.begin(), start.end());
    Ran started = vm().agent(arguments);
    EXPECT_TRUE(started.ok()) << started.describe();
    return started;
  }
  // The template is there, and good.
  static bool resumes() {
    if (!resumed()) restart();
    return resumed();
  }
};

TEST_F(TemplateTest, TheFirstBootLeavesOneAndTheNextStartResumesIt) {
  ASSERT_FALSE(templates().empty());
  restart();
  EXPECT_TRUE(resumed());
  EXPECT_TRUE(vm().agent({"status", vm().name()}).ok());
  // The control.
  restart({"--cold"});
  EXPECT_FALSE(resumed());
  EXPECT_TRUE(vm().agent({"status", vm().name()}).ok());
}

TEST_F(TemplateTest, WhatTheGuestChangesInItsFoldersLasts) {
  const std::vector<std::string> lasting{"/etc", "/home/dev",  "/opt",    "/root",
                                         "/srv", "/usr/local", "/var/lib"};
  for (const auto& folder : lasting) vm().root_says("echo kept > " + folder + "/probe");
  vm().root_says("rm /usr/bin/tree; echo lost > /probe; echo lost > /tmp/probe");
  for (const bool cold : {false, true}) {
    restart(cold ? std::vector<std::string>{"--cold"} : std::vector<std::string>{}, {});
    for (const auto& folder : lasting)
      EXPECT_EQ(vm().root_says("cat " + folder + "/probe"), "kept") << folder;
    EXPECT_EQ(vm().root_says("ls /usr/bin/tree /probe /tmp/probe 2>/dev/null || true"), "");
  }
}

TEST_F(TemplateTest, AUnitThatTheGuestEnabledRunsAfterTheNextStart) {
  vm().root_says(
      "printf '[Service]\\nType=oneshot\\nExecStart=/usr/bin/touch /run/probe-ran\\n"
      "[Install]\\nWantedBy=multi-user.target\\n' > /etc/systemd/system/probe.service; "
      "systemctl enable probe.service");
  EXPECT_EQ(vm().root_says("ls /run/probe-ran 2>/dev/null || true"), "");
  restart({}, {});
  EXPECT_TRUE(resumed());
  EXPECT_TRUE(vm().guest_sees("ls /run/probe-ran 2>/dev/null", std::chrono::seconds(20)));
  vm().root_says("systemctl disable probe.service; rm /etc/systemd/system/probe.service");
}

TEST_F(TemplateTest, Identity_TwoVmsOfOneTemplateDrawDifferentNumbers) {
  const std::string script =
      "head -c 32 /dev/urandom | base64; cat /proc/sys/kernel/random/uuid; "
      "python3 -c 'import random, uuid; print(random.getrandbits(256)); print(uuid.uuid4())'; "
      "mktemp -u; date +%Y";
  ASSERT_TRUE(resumes());
  const auto first = split_lines(vm().guest_says(script));
  restart();
  ASSERT_TRUE(resumed());
  const auto second = split_lines(vm().guest_says(script));
  ASSERT_EQ(first.size(), 6U);
  ASSERT_EQ(second.size(), 6U);
  for (std::size_t i = 0; i + 1 < first.size(); ++i) EXPECT_NE(first[i], second[i]);
  EXPECT_EQ(first.back(), second.back()) << "the control: the same script, line by line";
}

TEST_F(TemplateTest, S27_ADamagedTemplateCostsALineAndABoot) {
  ASSERT_TRUE(resumes());
  for (const auto* file : {"pages", "devices", "root.qcow2"}) {
    for (const auto& folder : templates()) {
      std::fstream damaged(folder + "/" + file, std::ios::in | std::ios::out | std::ios::binary);
      damaged.seekp(-1, std::ios::end);
      damaged.put('\xA5');
    }
    const Ran started = restart();
    EXPECT_THAT(started.error, HasSubstr("template")) << started.describe();
    EXPECT_THAT(started.error, HasSubstr(file)) << started.describe();
    EXPECT_FALSE(resumed());
    // It was replaced.
    const Ran next = restart();
    EXPECT_THAT(next.error, Not(HasSubstr("template")));
    EXPECT_TRUE(resumed());
  }
}

TEST_F(TemplateTest, S27_ATruncatedTemplateCostsALineAndABoot) {
  ASSERT_TRUE(resumes());
  for (const auto& folder : templates())
    fs::resize_file(folder + "/pages", fs::file_size(folder + "/pages") / 2);
  const Ran started = restart();
  EXPECT_THAT(started.error, HasSubstr("pages")) << started.describe();
  EXPECT_FALSE(resumed());
  restart();
  EXPECT_TRUE(resumed());
}

// Killed while a template is made, or used: nothing that is half made is ever resumed.
TEST_F(TemplateTest, F14_KilledWhileATemplateIsMadeOrUsed) {
  const std::string folder = image_cache().directory + "/templates";
  const auto killed_when = [&](auto reached) {
    vm().close_ssh();
    Background start(vm().agent_argv({"start", vm().name()}), vm().root(), vm().agent_options());
    EXPECT_TRUE(eventually(std::chrono::seconds(90), [&] {
      const auto who = vm().supervisor();
      if (!who || !reached()) return false;
      ::kill(who->pid, SIGKILL);
      return true;
    }));
    EXPECT_FALSE(start.wait().ok());
  };
  const auto draft_has = [&](const std::string& file) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none)) {
      if (entry.path().filename().string().starts_with(".new-") &&
          fs::exists(entry.path() / file, none))
        return true;
    }
    return false;
  };
  for (const auto* step : {"devices", "pages"}) {
    ASSERT_TRUE(vm().stop({"--force"}).ok());
    fs::remove_all(folder);
    killed_when([&] { return draft_has(step); });
    EXPECT_TRUE(templates().empty()) << step;
  }
  const auto length = vm().file("logs/supervisor.log").size();
  ASSERT_TRUE(vm().start());
  EXPECT_FALSE(resumed());
  ASSERT_EQ(templates().size(), 1U);
  EXPECT_FALSE(draft_has("")) << "what was half made is gone";
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  killed_when([&] {
    return vm().file("logs/supervisor.log").find("start: memory after", length) !=
           std::string::npos;
  });
  // The control: the template was whole all the time.
  ASSERT_TRUE(vm().start());
  EXPECT_TRUE(resumed());
}

// The manifest is right, and QEMU cannot make sense of the state all the same.
TEST_F(TemplateTest, AStateThatQemuCannotReadCostsALineAndABoot) {
  ASSERT_TRUE(resumes());
  for (const auto& folder : templates()) {
    const std::string devices = folder + "/devices";
    const auto size = fs::file_size(devices);
    write_file(devices, std::string(size, 'x'));
    auto manifest = nlohmann::json::parse(read_text(folder + "/template.json"));
    const Ran sum = run_program({"sha256sum", devices});
    manifest["files"]["devices"]["sha256"] = sum.out.substr(0, 64);
    write_file(folder + "/template.json", manifest.dump());
  }
  const Ran started = restart();
  EXPECT_THAT(started.error, HasSubstr("could not be used")) << started.describe();
  EXPECT_FALSE(resumed());
  restart();
  EXPECT_TRUE(resumed());
}

}  // namespace
}  // namespace agent_vm::test
