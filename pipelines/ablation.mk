# The terms of Q-VLM one by one, and its partition beside others at the same cap of three layers a block, as rows of
# compare.mk.  ablation.sh is the short way in.

HERE     := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
VARIANTS ?= outlier
BITS     ?= w4a4 w3a4
SEEDS    ?= 1 2 3 4 5
TABLE    := ablation

# The paper's Table 1: block-wise search (cdm), the effect on the final output (veo), both (qvlm); beside layer-wise
# search, and a block-wise search whose blocks are single layers, without either term.
METHODS_terms   ?= layerwise single cdm veo qvlm
AGAINST_terms   := layerwise
# Its Table 5, and the partitions that it lacks: without the effect on the final output.
METHODS_blocks  ?= entropy median upper error fixed2 fixed3 $(SEEDS:%=random%)
AGAINST_blocks  := entropy
SCHEMES         ?= terms blocks

HOW_single      := qvlm --veo off
HOW_cdm         := qvlm --veo off
HOW_veo         := qvlm --veo on
HOW_qvlm        := qvlm --veo on
HOW_entropy     := qvlm --veo off
HOW_median      := qvlm --veo off
HOW_upper       := qvlm --veo off
HOW_error       := qvlm --veo off
HOW_fixed2      := qvlm --veo off
HOW_fixed3      := qvlm --veo off
PLAN_layerwise  := --partition none
PLAN_single     := --partition none
PLAN_veo        := --partition none
PLAN_median     := --h0-quantile 0.5
PLAN_upper      := --h0-quantile 0.75
PLAN_error      := --proxy error
PLAN_fixed2     := --partition fixed --depth 2
PLAN_fixed3     := --partition fixed --depth 3
define random
HOW_random$(1)  := qvlm --veo off
PLAN_random$(1) := --partition random --depth 3 -S $(1)
endef
$(foreach s,$(SEEDS),$(eval $(call random,$(s))))

# Each row pays for what it needs: influence and sketches for veo, rounding errors for that proxy.  The joint
# matrices of levels, which the entropies come from, cannot be left out; plain measures them too.
FLAGS_calib     := --bits 4 --influence-samples 0
FLAGS_calib-veo := --bits 4
FLAGS_calib-error := --bits 4 --influence-samples 0 --error-stats
CAL_veo         := calib-veo
CAL_qvlm        := calib-veo
CAL_error       := calib-error

# How well the proxies foretell the measured dependency of two layers (ded.sh; SUBSETS and SAMPLES are its).
DED       = $(OUT)/ded/ded.tsv
MD_FLAGS  = $(if $(wildcard $(DED)),-v ded=$(DED))

include $(HERE)/compare.mk

rows: $(DED)
$(DED):
	@echo "$(TABLE): proxies beside the measured dependency of neighbouring layers"
	@$(HERE)/ded.sh $(BIN) $(@D) $(MODEL_$(firstword $(VARIANTS))) $(CALIB) 4 4
$(OUT)/$(TABLE).md: $(wildcard $(DED))
