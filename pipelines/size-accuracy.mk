# Models with fewer and fewer blocks, in full precision and with GPTQ's four-bit weights, as variants and rows of
# compare.mk.  size-accuracy.sh is the short way in.  What is calibrated and rounded is the pruned model.

HERE        := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
MODEL       ?= $(HERE)/demo/mini-llava
# How many blocks go.  Rows are kept under OUT by that number: another MODEL or HEAL wants another OUT.
REMOVED     ?= 0 1 2 3
# none, linear or lora, see vqlm-prune(1).
HEAL        ?= none
HEAL_FLAGS  ?=
# Ten samples, the default, are too few to rank five blocks; of five all may go.  Chosen on the validation split.
PRUNE_FLAGS ?= --criterion ppl --answers --samples 64 --iterative --no-keep

VARIANTS    := $(REMOVED:%=removed%)
SCHEMES     := group
BITS        ?= w4a16
METHODS     ?= gptq
AGAINST     := fp
TABLE       := size-accuracy
$(foreach v,$(VARIANTS),$(eval MODEL_$(v) = $$(OUT)/$(v)/model.vqs))

SIZES        = $(VARIANTS:%=$(OUT)/%/size.tsv)
TSV_FILTER   = awk -f $(HERE)/size-accuracy.awk $(wildcard $(SIZES)) -
MD_FLAGS     = -v heal=$(HEAL)

include $(HERE)/compare.mk

# All sizes are streams, the whole model too, so that their memory compares.
$(OUT)/removed0/model.vqs:
	@mkdir -p $(@D)
	@exec $(BIN)/vqlm-calib -q -n 0 -m $(MODEL) -o $@
$(filter-out $(OUT)/removed0/%,$(VARIANTS:%=$(OUT)/%/model.vqs)): $(OUT)/removed%/model.vqs:
	@mkdir -p $(@D)
	@echo "$(TABLE): removed$*: the blocks that go, heal $(HEAL)"
	@exec $(BIN)/vqlm-prune -q -S $(SEED) $(PRUNE_FLAGS) -m $(MODEL) -d $(CALIB) -n $* $(if $(filter-out none,$(HEAL)),\
		--heal $(HEAL) $(if $(filter lora,$(HEAL)),--lora-state $(@D)/lora.state) $(HEAL_FLAGS)) -o $@

$(FP:%=$(OUT)/%.json): $(OUT)/%/fp.json: $(OUT)/%/model.vqs
$(CALIBS): $(OUT)/%/calib.vqs: $(OUT)/%/model.vqs

# Its number of removed blocks, of blocks and of weights.
rows: $(SIZES)
$(SIZES): $(OUT)/%/size.tsv: $(OUT)/%/model.vqs
	@blocks=$$($(BIN)/vqlm-ls --cat config $< | jq .decoder.n_layers); \
	$(BIN)/vqlm-ls --json $< | jq -s -r --arg variant $* --arg blocks "$$blocks" \
		'[$$variant, ($$variant | ltrimstr("removed")), $$blocks, ([.[] | select(.kind == "TENSOR") | .shape | reduce .[] as $$d (1; . * $$d)] | add)] | @tsv' >$@.part
	@mv $@.part $@
$(OUT)/$(TABLE).tsv: $(wildcard $(SIZES)) $(HERE)/size-accuracy.awk
