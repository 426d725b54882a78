# The comparison of methods as a graph: for each variant of the model, activation scheme, width and method a packed
# model, answers to the test questions and scores, then one table and its chart.  table2.sh and table4.sh are the
# short ways in.  A row lives under OUT/VARIANT/SCHEME/BITS/METHOD.*; its .json, written last, says that it is done.
#
#   make -f pipelines/compare.mk BIN=build/bin OUT=x METHODS='rtn qvlm' BITS=w4a4 SCHEMES=group VARIANTS=outlier rows table

BIN    ?= build/bin
OUT    ?= build/table2
HERE   := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
DEMO   := $(HERE)/demo
SQA    ?= $(DEMO)/mini-sqa
CALIB  ?= $(SQA)/llava_train_calib_CQM-A.json
TEST   ?= $(SQA)/llava_test_CQM-A.json
RIGHT  ?= $(SQA)/problems.json
SEED   ?= 0

VARIANTS ?= outlier plain
SCHEMES  ?= group paper
BITS     ?= w8a8 w6a6 w4a4 w3a4 w3a3 w4a16
METHODS  ?= rtn awq awq-joint nf4 qvlm gptq best best-wush
# What each row is paired with: a method, or fp.
AGAINST  ?= qvlm
TABLE    ?= table2
# METHODS_SCHEME and AGAINST_SCHEME, where set, stand in for METHODS and AGAINST.  Joint losses of awq want ranges that
# are found anew for each token.
METHODS_paper ?= $(filter-out awq-joint,$(METHODS))

# Name of the row: vqlm-search's method and flags; PLAN_NAME and CAL_NAME, where set, are flags of vqlm-entropy and
# another calibration than calib.  gptq as AutoGPTQ's users run it.
MODEL_outlier ?= $(DEMO)/mini-llava-outlier
MODEL_plain   ?= $(DEMO)/mini-llava
HOW_rtn       ?= rtn
HOW_layerwise ?= layerwise
HOW_qvlm      ?= qvlm
HOW_gptq      ?= gptq --act-order --gptaq 0
HOW_awq       ?= awq
HOW_awq-joint ?= awq --awq-loss joint
HOW_nf4       ?= nf4
HOW_best      ?= best
HOW_best-wush ?= best --rotate wush --smooth off
ACTS_group    ?= --acts group
ACTS_paper    ?= --acts paper
FLAGS_calib   ?= --bits 3,4,6,8
CALIB_FLAGS   ?=
SEARCH_FLAGS  ?=
INFER_FLAGS   ?=
# 1 keeps the packed models, a few MB each.
KEEP          ?=
# What the table's rows go through: a table with columns of its own adds them there.
TSV_FILTER    ?= cat

# Without quantized activations both schemes are the same: such widths are run once, under the first.
CELLS := $(foreach v,$(VARIANTS),$(foreach s,$(SCHEMES),$(foreach b,$(BITS),\
	$(if $(and $(filter %a16,$(b)),$(filter-out $(firstword $(SCHEMES)),$(s))),,$(v)/$(s)/$(b)))))
QUANT := $(foreach c,$(CELLS),$(foreach m,$(or $(METHODS_$(word 2,$(subst /, ,$(c)))),$(METHODS)),$(c)/$(m)))
FP    := $(VARIANTS:%=%/fp)
ROWS  := $(foreach v,$(VARIANTS),$(v)/fp $(filter $(v)/%,$(QUANT)))
TIMED := $(HERE)/timed.sh
# Make signals the process that it started and waits for that one alone: programs are exec'd by its shell.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.PHONY: rows table
rows: $(ROWS:%=$(OUT)/%.json) $(QUANT:%=$(OUT)/%.pair)
table: $(OUT)/$(TABLE).tsv $(OUT)/$(TABLE).md $(OUT)/$(TABLE).svg

# The first folder of a row, its last folder, its second.
variant = $(word 1,$(subst /, ,$(1)))
scheme  = $(word 2,$(subst /, ,$(1)))
bits    = $(subst a, ,$(patsubst w%,%,$(word 3,$(subst /, ,$(1)))))
name    = $(word 4,$(subst /, ,$(1)))
calib   = $(OUT)/$(variant)/$(or $(CAL_$(name)),calib)
against = $(or $(AGAINST_$(scheme)),$(AGAINST))
beside  = $(if $(filter fp,$(against)),$(OUT)/$(variant)/fp,$(OUT)/$(dir $(1))$(against))

CALIBS := $(sort $(foreach q,$(QUANT),$(call calib,$(q)).vqs))
$(CALIBS):
	@mkdir -p $(@D)
	@echo "$(TABLE): $(notdir $(@D)): $(basename $(@F)) on $(notdir $(CALIB))"
	@exec $(TIMED) -l $(@:.vqs=.log) $(@:.vqs=.made) $(BIN)/vqlm-calib -v $(FLAGS_$(basename $(@F))) \
		-S $(SEED) $(CALIB_FLAGS) -m $(MODEL_$(notdir $(@D))) -d $(CALIB) -o $@.new
	@mv $@.new $@

# Answers, and the logits of the last prompt token, which every other row is compared with.
$(FP:%=$(OUT)/%.json): $(OUT)/%/fp.json:
	@mkdir -p $(@D)
	@echo "$(TABLE): $*: full precision answers $(notdir $(TEST))"
	@exec $(TIMED) $(@D)/fp.ran $(BIN)/vqlm-infer -q --float32 $(INFER_FLAGS) -m $(MODEL_$*) -d $(TEST) \
		--logits $(@D)/fp.logits -o $(@D)/fp.jsonl
	@$(BIN)/vqlm-eval -q -r $(RIGHT) -f json -o $@ $(@D)/fp.jsonl

# Search says with -v what it cost: kept in the .log.
$(QUANT:%=$(OUT)/%.vqm): $(OUT)/%.vqm: $$(call calib,$$*).vqs
	@mkdir -p $(@D)
	@PLAN_FLAGS='$(PLAN_$(call name,$*))' exec $(TIMED) -l $(OUT)/$*.log $(OUT)/$*.made \
		$(HERE)/quantize.sh $(BIN) $< $@.new $(firstword $(HOW_$(call name,$*))) $(call bits,$*) \
		$(wordlist 2,99,$(HOW_$(call name,$*))) $(ACTS_$(call scheme,$*)) $(SEARCH_FLAGS) -v
	@mv $@.new $@

# The row beside full precision.  Its logits, 6 MB, and its model go when the row is done, which the name of its .json
# says: whatever a run was killed at, the next one ends with the same files.
$(QUANT:%=$(OUT)/%.json): $(OUT)/%.json: $(OUT)/%.vqm $(OUT)/$$(call variant,$$*)/fp.json
	@echo "$(TABLE): $*"
	@exec $(TIMED) $(OUT)/$*.ran $(BIN)/vqlm-infer -q $(INFER_FLAGS) -m $< -d $(TEST) --logits $(OUT)/$*.logits \
		-o $(OUT)/$*.jsonl
	@exec $(BIN)/vqlm-eval -q -r $(RIGHT) -f json -b $(OUT)/$(call variant,$*)/fp.jsonl --logits $(OUT)/$*.logits \
		--baseline-logits $(OUT)/$(call variant,$*)/fp.logits -o $@.new $(OUT)/$*.jsonl
	@rm $(OUT)/$*.logits $(if $(KEEP),,$<)
	@mv $@.new $@
# A done row does not want its model again.
.SECONDARY: $(QUANT:%=$(OUT)/%.vqm)

# The row beside the method that all are paired with.
$(QUANT:%=$(OUT)/%.pair): $(OUT)/%.pair: $(OUT)/%.json $$(call beside,$$*).json
	@$(BIN)/vqlm-eval -q -r $(RIGHT) -f json -b $(call beside,$*).jsonl -o $@ $(OUT)/$*.jsonl

# The table has the rows that there are: one that failed leaves a gap, not an end.
DONE := $(foreach r,$(ROWS),$(if $(wildcard $(OUT)/$(r).json),$(r)))
$(OUT)/$(TABLE).tsv: $(DONE:%=$(OUT)/%.json) $(wildcard $(QUANT:%=$(OUT)/%.pair)) $(HERE)/compare.jq $(HERE)/compare-row.sh
	@{ $(foreach r,$(DONE),$(HERE)/compare-row.sh $(OUT) $(r) $(call calib,$(r));) } >$@.all
	@awk 'NR == 1 || !/^variant\t/' $@.all | $(TSV_FILTER) >$@.part
	@rm $@.all
	@mv $@.part $@
$(OUT)/$(TABLE).md: $(OUT)/$(TABLE).tsv $(HERE)/$(TABLE)-md.awk
	@awk -v against=$(AGAINST) $(MD_FLAGS) -f $(HERE)/$(TABLE)-md.awk $< >$@.part && mv $@.part $@
$(OUT)/$(TABLE).svg: $(OUT)/$(TABLE).tsv $(HERE)/$(TABLE).gp
	@if command -v gnuplot >/dev/null; then \
		gnuplot -e "table='$<'; picture='$@.part'" $(HERE)/$(TABLE).gp && mv $@.part $@; \
	else echo "$(TABLE): no gnuplot, no chart"; fi
