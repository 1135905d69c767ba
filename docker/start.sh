#!/bin/sh
# An empty workspace gets the starter skills and their adapters; then the intern starts in this process, so that it gets
# the signals.
set -eu
if [ ! -d "$INTERN_HOME/skills" ]; then
  intern init "$INTERN_HOME"
fi
exec intern up
