#include "bunker/v1/placement.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/bunker_spec.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

void ToMessage(const PlacementRow& row, v1::PlacementRow* out) {
  out->set_worker_id(row.worker_id);
  out->set_worker_name(row.worker_name);
  out->set_eligible(row.eligible);
  if (row.eligible) out->set_score(row.score);
  if (row.predicate) out->set_predicate(std::string(NameOf(*row.predicate)));
  if (!row.shortfall.empty()) out->set_shortfall(row.shortfall);
  if (!row.remedy.empty()) out->set_remedy(row.remedy);
  if (row.eta_s) out->set_eta_s(*row.eta_s);
}

absl::StatusOr<v1::PlacementExplanation> ExplainCreate(CallContext& context,
                                                       const v1::ExplainPlacementRequest& request) {
  ASSIGN_OR_RETURN(const CreateBunkerSpec spec, BunkerSpecOf(context, request.bunker()));
  ASSIGN_OR_RETURN(const PlacementExplanation why,
                   context.engine.ExplainPlacement(context.turn, context.caller, spec));
  v1::PlacementExplanation response;
  response.set_placeable(why.error_code.empty());
  if (!why.error_code.empty()) {
    response.set_code(why.error_code);
    response.set_message(why.error_message);
  }
  response.set_eligible(why.eligible);
  for (const auto& [predicate, count] : why.counts) (*response.mutable_counts())[predicate] = count;
  for (const PlacementRow& row : why.rows) ToMessage(row, response.add_workers());
  return response;
}

}  // namespace

void RegisterPlacementService(const ServiceDeps&, Dispatcher* dispatcher) {
  dispatcher->For("bunker.v1.Placement.ExplainPlacement")
      .Register<v1::ExplainPlacementRequest, v1::PlacementExplanation>(ExplainCreate);
}

}  // namespace bunker::controller
