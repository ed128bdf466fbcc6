// How a build tells what it is doing.
#pragma once

#include <string_view>

namespace agent_vm {

class Progress {
 public:
  virtual ~Progress() = default;
  // A new step begins: "Installing packages".
  virtual void step(std::string_view what) = 0;
  // How much of it is done, 0 to 1. Often.
  virtual void fraction(double done) = 0;
  // Something worth a line of its own, such as waiting for another build.
  virtual void note(std::string_view text) = 0;
};

}  // namespace agent_vm
