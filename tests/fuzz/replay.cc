// Runs a fuzz target over files instead of over what libFuzzer thinks up: the corpus, in ./test,
// and a finding, in a debugger.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::size_t count = 0;
  for (int i = 1; i < argc; ++i) {
    std::vector<std::filesystem::path> files;
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
        files.push_back(entry.path());
      }
    } else {
      files.emplace_back(argv[i]);
    }
    for (const auto& file : files) {
      std::ifstream in(file, std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(in)), {});
      // Every beginning of it as well: what is cut off must be refused, not read past its end.
      for (std::size_t size = 0; size <= bytes.size(); ++size) {
        const std::vector<std::uint8_t> exact(bytes.begin(), bytes.begin() + std::ptrdiff_t(size));
        LLVMFuzzerTestOneInput(exact.data(), exact.size());
      }
      ++count;
    }
  }
  std::printf("%zu files\n", count);
  return count > 0 ? 0 : 1;
}
