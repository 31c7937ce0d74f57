# make demo: set up and convert the demo data on the embedded body.   make demo-photo: skeletons in a photograph.
# make test: run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo demo-photo test lint bench bench-pipeline bench-loader bench-train bench-gpu train-demo evaluate-demo clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

demo: setup
	$(BIN)/beam run pipelines/build_hmr_skel.py --runner=DirectRunner --overwrite
	$(BIN)/hmr-skel inspect demo/hmr_skel --verify --contact-sheet demo/contact_sheet.png

# A photograph that nobody took, and what is made of one: bones over it, a mesh, a page, models and poses for OpenSim.
PHOTO := demo/photo
demo-photo: setup
	$(BIN)/python -m pipelines.demo.photo $(PHOTO)/photo.jpg
	$(BIN)/hmr-skel predict $(PHOTO)/photo.jpg -o $(PHOTO)/skel --overlay --meshes glb --opensim --overwrite
	$(BIN)/hmr-skel view $(PHOTO)/skel --html $(PHOTO)/page.html
	@ls $(PHOTO)/photo.jpg $(PHOTO)/page.html $(PHOTO)/skel/overlays/* $(PHOTO)/skel/meshes/* $(PHOTO)/skel/opensim/photo/*.[om]*

# One thread per test process: two processes with two threads each fight over two cores.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python -m tests.benchmarks.fit

# Memory of a step is kept for the next one: handing it back and asking again took an eighth of the time (glibc).
TRAINING := OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000

# After make demo: 64 of its people by heart, then, on some 4,000 others, does what is learnt hold for those held out?
train-demo: setup
	$(TRAINING) $(BIN)/hmr-skel train --preset overfit --shards demo/hmr_skel --output demo/overfit
	$(BIN)/hmr-skel evaluate mean --shards demo/hmr_skel --limit 64
	$(BIN)/hmr-skel evaluate demo/overfit --shards demo/hmr_skel --limit 64
	$(BIN)/python -m pipelines.demo.data demo/people --images 800 --seed 1 --draft
	$(BIN)/beam run pipelines/build_hmr_skel.py --annotations 'demo/people/labels/*.npz' --images demo/people/images --output demo/people_skel --overwrite
	$(TRAINING) $(BIN)/hmr-skel train --preset tiny --shards demo/people_skel --output demo/training
	$(BIN)/hmr-skel evaluate mean --shards demo/people_skel --part held-out
	$(BIN)/hmr-skel evaluate demo/training --shards demo/people_skel --part held-out

# The benchmark that needs no licence: the demo's trained network, if make train-demo made one, beside the mean person and
# SKEL fitted to the true SMPL bodies.
GRADES := everyday yoga occluded perspective
evaluate-demo: setup
	$(BIN)/python -m pipelines.demo.benchmark demo/benchmark --images 24 --draft
	OMP_NUM_THREADS=1 $(BIN)/hmr-skel evaluate $(if $(wildcard demo/training/checkpoint-*),demo/training) mean \
	    --benchmark $(GRADES:%=demo-%) demo-moyo demo-h36m demo-keypoints --data demo/benchmark --output demo/evaluation \
	    --two-stage $(foreach grade,$(GRADES),demo-$(grade)=demo/benchmark/demo_$(grade)_a.npz)

bench-pipeline: setup
	$(BIN)/python -m tests.benchmarks.pipeline
	$(BIN)/python -m tests.benchmarks.planning

bench-loader: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.loader

# On a GPU: ViT-H. Without one, say --backbone tiny --batch 8 --precision float32.
bench-train: setup
	$(BIN)/python -m tests.benchmarks.train_step

# Everything that a GPU is asked for, in one call under eight minutes; --reduced shows on a CPU that it runs.
bench-gpu: setup
	$(BIN)/python -m tests.benchmarks.gpu --out bench/gpu

clean:
	rm -rf $(VENV) demo build *.egg-info
