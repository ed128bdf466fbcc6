# One static library per folder of src/, and a build that refuses an upward include.
#
# A library's headers are visible to its dependents, and to nobody else, through a private include
# root that holds a single link: <build>/include/<name>/<name> -> the folder. So `#include
# "plan/launch_plan.h"` compiles only in a folder that names `plan` in DEPENDS, and DEPENDS itself
# is checked against the order below.

set(AGENT_VM_LAYERS
  base os config state qmp plan confine net image control launch supervise cli main)
# Folders of equal rank must not include one another, so each has a number: lower is deeper.
set(AGENT_VM_RANK_base 0)
set(AGENT_VM_RANK_os 1)
set(AGENT_VM_RANK_config 2)
set(AGENT_VM_RANK_state 3)
set(AGENT_VM_RANK_qmp 3)
set(AGENT_VM_RANK_plan 3)
set(AGENT_VM_RANK_confine 4)
set(AGENT_VM_RANK_net 4)
set(AGENT_VM_RANK_image 4)
set(AGENT_VM_RANK_control 4)
set(AGENT_VM_RANK_launch 5)
set(AGENT_VM_RANK_supervise 6)
set(AGENT_VM_RANK_cli 6)

# agent_vm_library(<name> [DEPENDS <folder>...] [LINK <external target>...])
# Compiles every *.cc of the current folder; *_test.cc become the program <name>_test.
function(agent_vm_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK;TEST_LINK" ${ARGN})
  foreach(dependency IN LISTS ARG_DEPENDS)
    if(DEFINED AGENT_VM_RANK_${name} AND NOT AGENT_VM_RANK_${dependency} LESS AGENT_VM_RANK_${name})
      message(FATAL_ERROR "src/${name} must not depend on src/${dependency}: see ARCHITECTURE.md")
    endif()
  endforeach()

  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  set(root ${CMAKE_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${name} SYMBOLIC)

  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${root})
  target_link_libraries(${name} PUBLIC agent_vm_flags ${ARG_DEPENDS} ${ARG_LINK})
  if(BUILD_TESTING AND tests)
    agent_vm_test(${name}_test SOURCES ${tests} LINK ${name} ${ARG_TEST_LINK})
  endif()
endfunction()

# agent_vm_test(<program> SOURCES <file>... LINK <target>...): a unit test program under CTest.
function(agent_vm_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES LABELS unit TIMEOUT 60)
endfunction()
