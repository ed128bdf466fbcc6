# For login shells, which is what `agent-vm shell` starts.
umask 022
[ -d "$HOME/.local/bin" ] && PATH="$HOME/.local/bin:$PATH"
[ -n "$BASH_VERSION" ] && [ -r "$HOME/.bashrc" ] && . "$HOME/.bashrc"
[ "$PWD" = "$HOME" ] && [ -d /workspace ] && cd /workspace || true
