#include "state/audit_log.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "os/certificate_authority.h"
#include "os/files.h"
#include "state/authority.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

class AuditLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/audit_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    path_ = path;
    dir_ = open_directory(path_).value();
  }
  void TearDown() override { fs::remove_all(path_); }

  std::string file() const { return path_ + "/audit/network.jsonl"; }
  void record(int count, std::size_t file_bytes = kAuditFileBytes) const {
    auto log = AuditLog::open(dir_.get(), "shop-main", file_bytes);
    ASSERT_TRUE(log);
    for (int i = 0; i < count; ++i)
      ASSERT_TRUE(log->append({{"url", fmt::format("https://ok.example/{}", i)}, {"status", 200}}));
  }
  std::vector<std::string> lines() const { return split_lines(*read_file(file(), 1U << 20U)); }
  void write(const std::vector<std::string>& lines) const {
    std::ofstream(file()) << join(lines, "\n") << "\n";
  }
  std::string problem() const { return verify_audit_log(dir_.get())->problem; }

  std::string path_;
  Fd dir_;
};

TEST_F(AuditLogTest, ContinuesItsChainAcrossRuns) {
  record(3);
  record(2);
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(verify_audit_log(dir_.get())->lines, 5U);
  const json last = json::parse(lines().back());
  EXPECT_EQ(last["seq"], 5);
  EXPECT_EQ(last["vm"], "shop-main");
  EXPECT_EQ(last["url"], "https://ok.example/1");
}

TEST_F(AuditLogTest, ShowsEveryLineThatIsChangedOrMissing) {
  record(5);
  const auto whole = lines();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    auto without = whole;
    without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
    write(without);
    EXPECT_NE(problem(), "") << "without line " << i;
    auto changed = whole;
    changed[i].replace(changed[i].find("200"), 3, "403");
    write(changed);
    EXPECT_NE(problem(), "") << "with line " << i << " changed";
  }
  write(whole);
  EXPECT_EQ(problem(), "");  // the control
}

TEST_F(AuditLogTest, S23_KeepsABoundedNumberOfFiles) {
  record(200, 1000);
  std::size_t bytes = 0;
  int files = 0;
  for (const auto& entry : fs::directory_iterator(path_ + "/audit")) {
    bytes += entry.file_size();
    ++files;
  }
  EXPECT_EQ(files, kAuditOlderFiles + 2);  // and head.json
  EXPECT_LE(bytes, 1000U * (kAuditOlderFiles + 1) + 200);
  EXPECT_EQ(problem(), "");
}

TEST_F(AuditLogTest, TakesNothingButPlainValues) {
  {
    auto log = AuditLog::open(dir_.get(), "shop-main");
    ASSERT_TRUE(log->append({{"seq", 77}, {"vm", "other"}, {"chain", "x"}, {"deep", {{"a", 1}}}}));
    ASSERT_TRUE(log->append(json("no object")));
  }
  const json line = json::parse(lines().front());
  EXPECT_EQ(line["seq"], 1);
  EXPECT_EQ(line["vm"], "shop-main");
  EXPECT_FALSE(line.contains("deep"));
  EXPECT_EQ(problem(), "");
}

TEST_F(AuditLogTest, S20_TheAuthoritysKeyIsTheOwnersAlone) {
  ASSERT_TRUE(ensure_authority("shop-main", dir_.get()));
  struct stat info {};
  ASSERT_EQ(::stat((path_ + "/ca/authority.pem").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  const auto certificate = read_authority_certificate(dir_.get());
  ASSERT_TRUE(certificate);
  EXPECT_EQ(certificate->subject_hash.size(), 8U);
  EXPECT_THAT(certificate->pem, testing::Not(HasSubstr("PRIVATE")));
  // Stays as it is, until another is asked for.
  ASSERT_TRUE(ensure_authority("shop-main", dir_.get()));
  EXPECT_EQ(read_authority_certificate(dir_.get())->pem, certificate->pem);
  EXPECT_GT(lifetime_left(certificate->pem).value(), std::chrono::hours(9 * 365 * 24));
  ASSERT_TRUE(replace_authority("shop-main", dir_.get()));
  EXPECT_NE(read_authority_certificate(dir_.get())->pem, certificate->pem);
}

}  // namespace
}  // namespace agent_vm
