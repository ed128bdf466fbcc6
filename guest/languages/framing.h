// The frames in which language servers write JSON: "Content-Length: N", an empty line, N bytes.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm::languages {

// More than any real answer; a server that announces more is broken.
inline constexpr std::size_t kMaxFrame = 64U << 20U;

class FrameReader {
 public:
  // Calls `on_frame` for every frame that is whole. After an error nothing more can be read: where
  // the next frame would begin is not known.
  Status feed(std::string_view bytes, const std::function<void(std::string_view)>& on_frame);

 private:
  std::string buffer_;
};

std::string to_frame(std::string_view content);

}  // namespace agent_vm::languages
