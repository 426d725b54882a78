# Quantization and evaluation in parts, as a graph: a calibration and a plan, pieces that are searched apart, one packed
# model, shards of the questions, one score.  RUN stands in front of every step:
#   make -j4 -f pipelines/cluster/cluster.mk                      this machine
#   make -j8 -f pipelines/cluster/cluster.mk RUN='srun -Q -n1 -c8 --mem=32G'
# array.sh and over-ssh.sh beside it run the same steps as Slurm's arrays and by GNU parallel over ssh.
# Every file appears under its name only when it is whole, and a step that was cut goes on from its .part: whatever
# happened, run the same line again.

HERE   := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
DEMO   := $(HERE)/../demo
BIN    ?= build/bin
OUT    ?= build/cluster
MODEL  ?= $(DEMO)/mini-llava
CALIB  ?= $(DEMO)/mini-sqa/llava_train_calib_CQM-A.json
TEST   ?= $(DEMO)/mini-sqa/llava_test_CQM-A.json
RIGHT  ?= $(DEMO)/mini-sqa/problems.json
# Where TEST's pictures are.
IMAGES ?= $(patsubst %/,%,$(dir $(TEST)))
# The units at which pieces begin, beside 0: a layer of the vision tower, the projector and a layer of the decoder are one
# unit each.  The model depends on them.
CUTS   ?= 4 6 8
SHARDS ?= 4
RUN    ?=
METHOD ?= qvlm
BITS   ?= 4
CALIB_FLAGS  ?=
PLAN_FLAGS   ?=
SEARCH_FLAGS ?=
INFER_FLAGS  ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
STEP  := $(HERE)/step.sh
SEARCH = --method $(METHOD) -w $(BITS) -a $(BITS) $(SEARCH_FLAGS)
empty :=
space := $(empty) $(empty)
comma := ,

# Piece I has the units from FIRST's Ith word to the one ahead of its next; the last piece has all that there are.
FIRST  := 0 $(CUTS)
PIECES := $(shell seq $(words $(FIRST)))
LAST   := $(foreach c,$(CUTS),$(shell expr $(c) - 1)) 65535
PARTS  := $(shell seq $(SHARDS))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all plan pieces model answers score
all: score
plan:    $(OUT)/plan.vqs
pieces:  $(PIECES:%=$(OUT)/piece-%.vqs)
model:   $(OUT)/model.vqm
answers: $(PARTS:%=$(OUT)/answers-%.jsonl)
score:   $(OUT)/score.json

$(OUT)/plan.vqs: $(MODEL)/config.json $(CALIB)
	@mkdir -p $(@D)
	@$(RUN) $(STEP) $(BIN) plan $@ $(MODEL) $(CALIB) $(BITS) '$(subst $(space),$(comma),$(strip $(CUTS)))' '$(CALIB_FLAGS)' $(PLAN_FLAGS)
$(OUT)/piece-%.vqs: $(OUT)/plan.vqs
	@$(RUN) $(STEP) $(BIN) piece $@ $< $(word $*,$(FIRST))-$(word $*,$(LAST)) $(SEARCH)
	@test -e $@ # whatever the launcher's status was
$(OUT)/model.vqm: $(PIECES:%=$(OUT)/piece-%.vqs)
	@$(RUN) $(STEP) $(BIN) model $@ $^
$(OUT)/answers-%.jsonl: $(OUT)/model.vqm $(TEST)
	@$(RUN) $(STEP) $(BIN) answers $@ $< $(TEST) $(IMAGES) $*/$(SHARDS) $(INFER_FLAGS)
	@test -e $@
$(OUT)/score.json: $(PARTS:%=$(OUT)/answers-%.jsonl)
	@$(BIN)/vqlm-eval -r $(RIGHT) -f json -o $@ $^

# For over-ssh.sh: "I A-B" or "I I/SHARDS" of what must be made, a line each, and the flags that all have.
.PHONY: list-pieces list-answers flags-piece flags-answers
list-pieces:
	@first=($(FIRST)) last=($(LAST)); for i in $(PIECES); do \
		$(MAKE) -s -f $(firstword $(MAKEFILE_LIST)) -q $(OUT)/piece-$$i.vqs 2>/dev/null || echo "$$i $${first[i-1]}-$${last[i-1]}"; done
list-answers:
	@for i in $(PARTS); do $(MAKE) -s -f $(firstword $(MAKEFILE_LIST)) -q $(OUT)/answers-$$i.jsonl 2>/dev/null || echo "$$i $$i/$(SHARDS)"; done
flags-piece:
	@echo "$(SEARCH)"
flags-answers:
	@echo "$(INFER_FLAGS)"
show-%:
	@echo $($*)
