// Test programs that run at the same time, such as root's and an ordinary user's, and the tests
// that cannot bear it.
#pragma once

namespace agent_vm::test {

// Held for as long as a test runs. Programs that were given the same --turns file run their tests
// side by side, but for those that are alone. Without that option nothing waits for anybody.
class Turn {
 public:
  // Waits for whoever is alone, or wants to be.
  Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn();

  // Waits until no test of another program runs; none begins before this turn ends. For a test that
  // measures time, or that takes the whole machine and would spoil what others measure.
  void alone();
};

}  // namespace agent_vm::test
