#include "image/lock_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace agent_vm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

ImageLock sample() {
  ImageLock lock{.release = "bookworm",
                 .architecture = "amd64",
                 .time = 1'700'000'000,
                 .choice = {.variant = "default", .packages = {"sl"}, .npm = {"left-pad@1.3.0"}}};
  lock.packages = {{.name = "libc6",
                    .version = "2.36-9+deb12u4",
                    .architecture = "amd64",
                    .sha256 = std::string(64, 'a'),
                    .size = 12,
                    .path = "pool/main/g/glibc/libc6_2.36-9+deb12u4_amd64.deb"},
                   {.name = "openssl",
                    .version = "3.0.11-1~deb12u2",
                    .architecture = "amd64",
                    .sha256 = std::string(64, 'b'),
                    .size = 13,
                    .path = "pool/updates/main/o/openssl/openssl_3.0.11-1~deb12u2_amd64.deb",
                    .security = true}};
  lock.npm_manifest = json{{"name", "x"}}.dump(2);
  lock.npm_lock = json{{"lockfileVersion", 3}}.dump(2);
  return lock;
}

TEST(LockFile, SurvivesWritingAndReading) {
  const auto lock = parse_lock(to_json_text(sample()), "a.lock");
  ASSERT_TRUE(lock) << lock.error().message();
  EXPECT_EQ(*lock, sample());
  EXPECT_EQ(hash_of(*lock), hash_of(sample()));
  ImageLock other = sample();
  other.packages[0].version = "2.36-9+deb12u5";
  EXPECT_NE(hash_of(other), hash_of(sample()));
}

struct BadLock {
  const char* what;
  std::function<void(json&)> spoil;
};

TEST(LockFile, RefusesBadInputAndSaysWhere) {
  const std::vector<BadLock> cases{
      {"schema 99", [](json& j) { j["schema"] = 99; }},
      {"'release'", [](json& j) { j.erase("release"); }},
      {"unknown key 'pakages'", [](json& j) { j["pakages"] = json::array(); }},
      {"'time'", [](json& j) { j["time"] = "now"; }},
      {"'packages'", [](json& j) { j["packages"] = json::array(); }},
      {"'packages'", [](json& j) { j["packages"] = 3; }},
      {"sorted", [](json& j) { j["packages"].push_back(j["packages"][0]); }},
      {"sha256", [](json& j) { j["packages"][0]["sha256"] = "ABC"; }},
      {"path", [](json& j) { j["packages"][0]["path"] = "pool/../../etc/passwd.deb"; }},
      {"path", [](json& j) { j["packages"][0]["path"] = "http://evil.test/pool/x.deb"; }},
      {"version", [](json& j) { j["packages"][0]["version"] = "1 -o Dir=/"; }},
      {"not the name of a Debian package", [](json& j) { j["packages"][0]["name"] = "-oX=y"; }},
      {"not the name of a Debian package", [](json& j) { j["choice"]["packages"] = {"a b"}; }},
      {"not the name of an npm package", [](json& j) { j["choice"]["npm"] = {"../x"}; }},
      {"'npm'", [](json& j) { j.erase("npm"); }},
      {"'npm'", [](json& j) { j["npm"] = json::array(); }},
      {"image variant", [](json& j) { j["choice"]["variant"] = "a+../b"; }},
  };
  for (const auto& [what, spoil] : cases) {
    json root = json::parse(to_json_text(sample()));
    spoil(root);
    const auto lock = parse_lock(root.dump(), "a.lock");
    ASSERT_FALSE(lock) << what;
    EXPECT_THAT(lock.error().message(), HasSubstr(what));
    EXPECT_THAT(lock.error().message(), HasSubstr("a.lock"));
    EXPECT_EQ(lock.error().kind(), ErrorKind::kInvalidInput);
  }
  const auto torn = parse_lock(to_json_text(sample()).substr(0, 100), "a.lock");
  ASSERT_FALSE(torn);
  EXPECT_EQ(torn.error().kind(), ErrorKind::kInvalidInput);
}

}  // namespace
}  // namespace agent_vm
