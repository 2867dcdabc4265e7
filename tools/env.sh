# Source this (bash) to use the project: puts .venv and the built messages on the paths of this shell.
# On top of a sourced ROS 2 installation it only adds; it never replaces what ROS has set.
# After make setup ROS=kilted: OMNIBIND_ROS=kilted source tools/env.sh

_omnibind_env() {
  local root ros venv install site libs
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  ros="${OMNIBIND_ROS:-jazzy}"
  if [ "$ros" = jazzy ]; then ros=""; fi
  venv="$root/.venv${ros:+-$ros}"
  install="$root/.ros${ros:+-$ros}/install/omnibind_ros"
  if [ ! -x "$venv/bin/python" ] || [ ! -d "$install" ]; then
    echo "not set up yet: run 'make setup${ros:+ ROS=$ros}' in $root" >&2
    return 1
  fi
  site=$(cd "$install"/lib/python3*/site-packages && pwd)
  if [ -n "$(_omnibind_newer "$root" "$site")" ]; then
    echo "built before the checkout changed ($(_omnibind_newer "$root" "$site")): run 'make setup${ros:+ ROS=$ros}' in $root" >&2
  fi

  export VIRTUAL_ENV="$venv"
  export PYTHONSAFEPATH=1  # the folder that a command is started in must not hide the built omnibind_ros
  _omnibind_prepend PATH "$venv/bin"
  _omnibind_prepend PYTHONPATH "$site"
  if [ -e "$venv/lib/librcl.so" ]; then  # ROS 2 from wheels
    _omnibind_prepend AMENT_PREFIX_PATH "$venv"
    for libs in "$venv"/lib/python3*/site-packages/ros_*.libs "$venv/lib"; do
      if [ -d "$libs" ]; then _omnibind_prepend LD_LIBRARY_PATH "$libs"; fi
    done
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # the paths are set: each python need not start itself a second time
    export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
    export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
  fi
  _omnibind_prepend AMENT_PREFIX_PATH "$install"
  _omnibind_prepend LD_LIBRARY_PATH "$install/lib"
}

# The first module of the checkout that the build lacks, or message that is newer than it; nothing if all is well.
_omnibind_newer() {
  local file
  while read -r file; do
    if [ ! -e "$2/$file" ]; then echo "$file"; return; fi
  done < <(cd "$1" && find omnibind_core omnibind_ros -name '*.py' 2>/dev/null)
  if [ -e "$2/omnibind_ros/msg/__init__.py" ]; then
    (cd "$1" && find msg -name '*.msg' -newer "$2/omnibind_ros/msg/__init__.py" | head -n 1)
  fi
}

# Puts a folder at the front of a path variable, unless it is there already.
_omnibind_prepend() {
  local current="${!1:-}"
  case ":$current:" in
    *":$2:"*) ;;
    *) export "$1=$2${current:+:$current}" ;;
  esac
}

_omnibind_env
