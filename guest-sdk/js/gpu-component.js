// The host's functions for gpu.js, in a component for the world stage-gpu.

import * as compute from "sluicebox:gpu/compute@0.1.0";

import { replace } from "./host.js";

replace({ gpu: compute });
