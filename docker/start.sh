#!/bin/sh
# An empty workspace gets the starter skills; then the intern starts in this process, so that it gets the signals.
set -eu
if [ ! -d "$INTERN_HOME/skills" ]; then
  # Moved into place whole: a start that is interrupted here leaves no half of them behind.
  rm -rf "$INTERN_HOME/.skills"
  cp -r /app/skills "$INTERN_HOME/.skills"
  mv "$INTERN_HOME/.skills" "$INTERN_HOME/skills"
fi
exec intern up
