# Compiler flags and the libraries that every part may use.

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tl-expected REQUIRED)
if(BUILD_TESTING)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()

add_library(agent_vm_flags INTERFACE)
target_compile_options(agent_vm_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wformat=2
  # Designated initializers that leave defaults alone are how our plain structs are meant to be used.
  -Wno-missing-field-initializers
  $<$<BOOL:${AGENT_VM_WERROR}>:-Werror>
  -fstack-protector-strong -fno-omit-frame-pointer)
target_compile_definitions(agent_vm_flags INTERFACE
  _GNU_SOURCE
  $<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # -Wpedantic would reject the statement expressions behind TRY().
  target_compile_options(agent_vm_flags INTERFACE -Wno-pedantic)
  if(AGENT_VM_SANITIZE MATCHES "thread")
    # Asio's fences, which ThreadSanitizer does not see. What passes from one thread to another goes
    # through a queue with a mutex, which it does see.
    target_compile_options(agent_vm_flags INTERFACE -Wno-tsan)
  endif()
else()
  target_compile_options(agent_vm_flags INTERFACE -Wno-gnu-statement-expression)
endif()
if(AGENT_VM_SANITIZE)
  target_compile_options(agent_vm_flags INTERFACE -fsanitize=${AGENT_VM_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(agent_vm_flags INTERFACE -fsanitize=${AGENT_VM_SANITIZE})
endif()
if(AGENT_VM_FUZZ)
  target_compile_options(agent_vm_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_include_directories(agent_vm_flags SYSTEM BEFORE INTERFACE ${PROJECT_SOURCE_DIR}/tests/fuzz/compat)
endif()
if(AGENT_VM_TIDY)
  find_program(CLANG_TIDY clang-tidy REQUIRED)
  set(CMAKE_CXX_CLANG_TIDY ${CLANG_TIDY})
endif()
