// The user's own repository, from which a VM's workspace is cloned: looked at with git, never
// changed. Only create and update come here; no other verb runs git on the host except fetch.
#pragma once

#include <optional>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "os/run.h"

namespace agent_vm {

// What bounds the programs that an operation runs.
struct Bounds {
  Deadline deadline = Deadline::never();
  int interrupt_fd = -1;  // of an InterruptWatch, or -1

  // kInterrupted or kTimeout, between steps that run no program.
  Status check() const;
};

// git with everything switched off that a repository's configuration could run. `protocols`: the
// only ones it may speak ("file", "ssh"), whatever any configuration says; none by default, because
// a repository can make git fetch for as little as looking at a commit that is missing.
Command git_command(const std::vector<std::string>& arguments, const Bounds& bounds,
                    const std::string& protocols = "none");

// What a git that failed has to say: the cause in the message, all of it (it may quote a guest) as
// evidence.
Error git_error(const CommandOutput& output, std::string_view doing);

struct SourceRepository {
  std::string top;             // canonical path of the working tree
  std::string name;            // its last component
  std::string branch;          // for the workspace
  std::string from_ref;        // what that branch starts at: "refs/heads/x", "HEAD", ...
  bool branch_is_new = false;  // the branch is made in the clone
  std::string object_format;   // "sha1" or "sha256"
  std::string origin;          // URL without credentials; empty: none
  std::string upstream;        // the same, when it differs from origin's
  std::string user_name;       // who the user is to git; empty: not configured
  std::string user_email;
};

// Examines the repository that `path` is in. `branch` empty: the current one, or a new one named
// after the commit when HEAD is detached. Refuses bare and empty repositories, branch names that
// git refuses, and places that must not be shared (S12).
Result<SourceRepository> inspect_source(const std::string& path, const std::string& branch,
                                        const std::string& state_directory, const Bounds& bounds);

// S12: whether `path` (canonical) may be the source of a workspace. `home` and `state` are
// canonical too.
Status check_shareable(const std::string& path, const std::string& home, const std::string& state);

// "https://user:secret@host/x?token=y" -> "https://host/x". The user of an ssh URL stays: it names
// an account, and is no secret.
std::string without_credentials(const std::string& url);

}  // namespace agent_vm
