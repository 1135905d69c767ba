#!/bin/sh
# An empty workspace gets the starter skills; then the intern starts in this process, so that it gets the signals.
set -eu
if [ ! -d "$INTERN_HOME/skills" ]; then
  cp -r /app/skills "$INTERN_HOME/skills"
fi
exec intern up
