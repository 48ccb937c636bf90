# make demo            watch a ROS 2 node turn camera images into depth (headless, about 20 s)
# make demo PROFILE=x  the same with the topics of a realsense, zed or oak
# make demo SOURCE=x   the same network on your own video, image folder or webcam number
# make test            checks and tests; SLOW=1 adds the slow ones, as CI does
# make bench           speed of networks, stages and node: tables, bench_out/bench.json and latency.png
#
# Each sets up .venv first, from the pinned files in requirements/. Needs Python >= 3.10 and make;
# what else is missing (python3-venv, the GL library that MuJoCo renders with) comes from apt.

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Only the demo and the tests on a machine without ROS take these; a robot has its own.
ROBOT := -r requirements/run.txt -r requirements/ros.txt
APT := $(shell test "$$(id -u)" = 0 || echo sudo) apt-get

.PHONY: demo test bench lint gl clean
.DELETE_ON_ERROR:

demo: .venv/robot gl
ifdef SOURCE
	$(PY) -m mono_depth_ros.depth_video "$(SOURCE)" --out demo_out $(ARGS)
else
	$(PY) -m mono_depth_ros.demo --out demo_out $(PROFILE:%=--profile %) $(ARGS)
endif

# The tests that run PyTorch have a process of their own: after the robot side's libraries have worked
# in the same one, PyTorch crashed.
TORCH_TESTS = $(shell grep -l 'importorskip("torch")' test/test_*.py) training
test: .venv/test gl lint
	$(PY) -m pytest $(if $(SLOW),,-m "not slow") $(ARGS) $(TORCH_TESTS:%=--ignore=%)
	$(PY) -m pytest $(if $(SLOW),,-m "not slow") $(ARGS) $(TORCH_TESTS)

lint: .venv/test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy mono_depth_ros training test

bench: .venv/bench gl
	$(PY) -m mono_depth_ros.depth_bench --stages --node --json bench_out/bench.json \
	  --plot bench_out/latency.png $(ARGS)

.venv/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed")'
	$(PYTHON) -m venv .venv || { echo "python3 -m venv failed: installing python3-venv"; \
	  $(APT) update -qq && $(APT) install -y -qq python3-venv && $(PYTHON) -m venv .venv; }
	touch $@

.venv/robot: .venv/python requirements/run.txt requirements/ros.txt
	@echo "installing the robot side into .venv (about a minute)"
	$(PIP) $(ROBOT)
	touch $@

.venv/bench: .venv/robot requirements/bench.txt
	$(PIP) $(ROBOT) -r requirements/bench.txt
	touch $@

TOOLS := $(addprefix requirements/, train.txt test.txt tensorrt.txt bench.txt view.txt)
.venv/test: .venv/robot $(TOOLS) .venv/bindings/tensorrt_10 .venv/bindings/tensorrt_11
	@echo "installing training and test tools into .venv (some minutes)"
	$(PIP) $(ROBOT) $(TOOLS:%=-r %)
	touch $@

# Versions of TensorRT that the code must fit, to look at: no two of them fit into one environment.
.venv/bindings/%: requirements/%_bindings.txt .venv/python
	rm -rf $@
	$(PIP) --no-deps --target $@ -r $<
	touch $@

# The virtual camera renders with EGL: on the GPU where there is one, else in software.
EGL := $(PY) -c 'from mujoco.egl import GLContext; GLContext(8, 8).free()' 2>/dev/null
gl: .venv/robot
	@$(EGL) || { echo "OpenGL (EGL) is missing: installing libegl1 and libgl1-mesa-dri"; \
	  $(APT) update -qq && $(APT) install -y -qq libegl1 libgl1-mesa-dri && $(EGL); }

clean:
	rm -rf .venv demo_out bench_out build install log
