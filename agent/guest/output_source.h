// Output that can be read by offset while it is written: a process's, or main's over all its runs.
#pragma once

#include "agent/guest/output_ring.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

class OutputSource {
 public:
  virtual ~OutputSource() = default;
  virtual const OutputRing& output() const = 0;
  // Nothing will be written any more.
  virtual bool ended() const = 0;
  // Once ended: how it ended last.
  virtual const v1::ExecExit& exit() const = 0;
};

}  // namespace bunker::guest
