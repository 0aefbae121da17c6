#include "controller/api/exec_start.h"

#include <limits>

namespace bunker::controller {

link::v1::ExecStart ExecStartOf(const v1::ExecRequest& request, const Caller& caller) {
  link::v1::ExecStart start;
  *start.mutable_argv() = request.command().argv();
  start.set_shell(request.command().shell());
  start.set_cwd(request.cwd());
  *start.mutable_env() = request.env();
  start.set_user(request.user());
  start.set_allow_root(HasPermission(caller, "root"));
  start.set_default_to_1000(!start.allow_root());
  start.set_max_output_bytes(std::numeric_limits<uint64_t>::max());
  start.set_tell_start(true);
  return start;
}

}  // namespace bunker::controller
