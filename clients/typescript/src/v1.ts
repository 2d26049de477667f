/** The messages and services of the API. */
export * from "./gen/wharfinger/v1/admin_pb.js";
export * from "./gen/wharfinger/v1/lease_pb.js";
export * from "./gen/wharfinger/v1/trust_pb.js";
export * from "./gen/wharfinger/v1/types_pb.js";
