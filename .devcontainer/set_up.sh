# Run once in a new container, as root: what make setup needs, then make setup on the installed Jazzy.
set -e
apt-get update
apt-get install -y --no-install-recommends libegl1 libgl1 python3-dev python3-venv
rosdep update --rosdistro jazzy
rosdep install --from-paths . --ignore-src --rosdistro jazzy -y
source /opt/ros/jazzy/setup.bash
make setup
echo "source /opt/ros/jazzy/setup.bash && source '$PWD/tools/env.sh'" >> ~/.bashrc
