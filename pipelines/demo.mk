# The demo as a graph: one calibration, ten models, ten runs over the test split, one table and its chart.
# `make -f pipelines/demo.mk BIN=build/bin OUT=build/demo`; pipelines/demo.sh is the short way in.
# Every file appears under its name only when it is whole, so an interrupted demo goes on where it was.

BIN    ?= build/bin
OUT    ?= build/demo
HERE   := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
DEMO   := $(HERE)/demo
MODEL  ?= $(DEMO)/mini-llava-outlier
SQA    ?= $(DEMO)/mini-sqa
CALIB  ?= $(SQA)/llava_train_calib_CQM-A.json
TEST   ?= $(SQA)/llava_test_CQM-A.json
RIGHT  ?= $(SQA)/problems.json
BITS   ?= 8 6 4
METHODS ?= rtn layerwise qvlm
# More flags for a tool, to try something: make -f pipelines/demo.mk OUT=x SEARCH='--group 64'
CALIB_FLAGS  ?=
SEARCH_FLAGS ?=
INFER_FLAGS  ?=

QUANT := $(foreach b,$(BITS),$(foreach m,$(METHODS),$(m)-w$(b)a$(b)))
ROWS  := fp $(QUANT)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: all
all: $(OUT)/table.tsv $(OUT)/table.md $(OUT)/chart.svg

# Runs the rest of the line and writes its seconds to a file.
TIMED := $(HERE)/timed.sh

$(OUT)/calib.vqs: $(MODEL)/config.json $(CALIB)
	@mkdir -p $(@D)
	@echo "demo: calibrating on $(notdir $(CALIB))"
	@$(TIMED) $(OUT)/calib.made $(BIN)/vqlm-calib $(CALIB_FLAGS) -q -m $(MODEL) -d $(CALIB) -o $@

# $(1) method, $(2) bits.
define quantize
$(OUT)/$(1)-w$(2)a$(2).vqm: $(OUT)/calib.vqs
	@echo "demo: $(1) at $(2) bits"
	@$(TIMED) $(OUT)/$(1)-w$(2)a$(2).made $(HERE)/quantize.sh $(BIN) $$< $$@ $(1) $(2) $(2) $(SEARCH_FLAGS)
endef
$(foreach b,$(BITS),$(foreach m,$(METHODS),$(eval $(call quantize,$(m),$(b)))))

# Answers and, beside them, the logits of the last prompt token.
$(OUT)/fp.jsonl: $(MODEL)/config.json $(TEST)
	@mkdir -p $(@D)
	@echo "demo: full precision answers $(notdir $(TEST))"
	@$(TIMED) $(OUT)/fp.ran $(BIN)/vqlm-infer --float32 $(INFER_FLAGS) -q -m $(MODEL) -d $(TEST) --logits $(OUT)/fp.logits -o $@
$(QUANT:%=$(OUT)/%.jsonl): %.jsonl: %.vqm
	@echo "demo: $(notdir $*) answers"
	@$(TIMED) $*.ran $(BIN)/vqlm-infer $(INFER_FLAGS) -q -m $< -d $(TEST) --logits $*.logits -o $@

# Each row beside round-to-nearest of the same bits, and its logits beside those of full precision.
$(OUT)/fp.json: $(OUT)/fp.jsonl
	@$(BIN)/vqlm-eval -r $(RIGHT) -f json -o $@ $<
define score
$(OUT)/$(1)-w$(2)a$(2).json: $(OUT)/$(1)-w$(2)a$(2).jsonl $(OUT)/rtn-w$(2)a$(2).jsonl $(OUT)/fp.jsonl
	@$(BIN)/vqlm-eval -r $(RIGHT) -f json -b $(OUT)/rtn-w$(2)a$(2).jsonl --logits $(OUT)/$(1)-w$(2)a$(2).logits \
		--baseline-logits $(OUT)/fp.logits -o $$@ $$<
endef
$(foreach b,$(BITS),$(foreach m,$(METHODS),$(eval $(call score,$(m),$(b)))))

$(OUT)/table.tsv: $(ROWS:%=$(OUT)/%.json) $(HERE)/table.jq
	@for r in $(ROWS); do \
		jq -r --arg row "$$r" --arg made "$$(cat $(OUT)/$$r.made 2>/dev/null || true)" \
			--arg ran "$$(cat $(OUT)/$$r.ran)" -f $(HERE)/table.jq $(OUT)/$$r.json; \
	done | awk 'NR == 1 || !/^method\t/' >$@.part
	@mv $@.part $@
$(OUT)/table.md: $(OUT)/table.tsv $(HERE)/table-md.awk
	@awk -f $(HERE)/table-md.awk $< >$@.part && mv $@.part $@
$(OUT)/chart.svg: $(OUT)/table.tsv $(HERE)/chart.gp
	@if command -v gnuplot >/dev/null; then \
		gnuplot -e "table='$<'; picture='$@.part'" $(HERE)/chart.gp && mv $@.part $@; \
	else echo "demo: no gnuplot, no chart"; fi
