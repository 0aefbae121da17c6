// The part of the accelerator probe that runs in a child process: see accel_probe.h.
#pragma once

namespace bunker::agent {

// Written by the child as it goes, read by the parent after its end: shared memory.
struct KvmStepReport {
  bool works = false;
  char step[96] = {};    // the step at which it stopped
  char detail[160] = {};
};

// Runs all steps on `device` and leaves the outcome in `report`. Calls nothing that allocates or
// locks: it runs in a child forked from a process with threads.
void RunKvmSteps(const char* device, KvmStepReport* report);

}  // namespace bunker::agent
