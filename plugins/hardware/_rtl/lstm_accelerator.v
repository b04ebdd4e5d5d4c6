// A whole LSTM layer on the bank engine, closed loop: inputs in, outputs out, h and c stay inside from step to step.
//
// A step is a product of [x, h], then its element-wise part, E units per cycle, which writes h back to the vector RAMs
// for the next step; the next x may come in meanwhile. Row 4k + j of the engine is gate j (i, f, g, o) of the k-th unit
// in the design's order, in which any E units of one cycle lie in different lanes: no two meet at one write port.
//
// x: X_BEATS beats of N elements, see README.md. y: ceil(UNITS / E) beats of E exact outputs o * tanh(c), 2 * VECTOR_BITS
// each, zero behind the last unit. M is a multiple of 4 * E. A reset clears h and c, which takes as many cycles as a
// vector RAM has words.
module lstm_accelerator #(
    parameter M = 4,
    parameter N = 16,
    parameter E = 1,
    parameter UNITS = 4,
    parameter WAVES = 1,
    parameter LONGEST = 32,
    parameter X_BEATS = 16,
    parameter LOCKSTEP = 0,
    parameter WEIGHT_BITS = 16,
    parameter VECTOR_BITS = 16,
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 12,
    parameter DEPTH_BITS = 12,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    parameter integer STATE_EXPONENT = -12,
    parameter integer H_EXPONENT = -15,
    // Words of every processing element, DEPTH_BITS + 1 bits each, the first in the lowest bits.
    parameter [M*(DEPTH_BITS+1)-1:0] COUNTS = 0,
    parameter WEIGHTS = "mem/weights_",
    parameter CONSTANTS = "mem/constants_",
    // Where the elements of every beat of x lie, and where h of every unit belongs.
    parameter PLACES = "mem/places.hex",
    parameter UNIT_PLACES = "mem/units_",
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter VECTOR_STYLE = "auto",
    parameter VECTOR_STYLE_INTEL = ""
) (
    input wire clk,
    input wire rst,
    input wire x_valid,
    output wire x_ready,
    input wire [N*VECTOR_BITS-1:0] x_data,
    output wire busy,
    output wire done,
    output wire [31:0] cycles,
    output wire y_valid,
    input wire y_ready,
    output wire [E*2*VECTOR_BITS-1:0] y_data,
    output wire y_last
);
  localparam INDEX_BITS = LONGEST > 1 ? $clog2(LONGEST) : 1;
  localparam WAVE_BITS = WAVES > 1 ? $clog2(WAVES) : 1;
  localparam PLACE = WAVE_BITS + INDEX_BITS;
  localparam LANE_BITS = N > 1 ? $clog2(N) : 1;
  localparam GROUPS = (UNITS + E - 1) / E;
  localparam GROUP_BITS = GROUPS > 1 ? $clog2(GROUPS) : 1;
  localparam X_BITS = X_BEATS > 1 ? $clog2(X_BEATS) : 1;
  localparam SUBS = M / (4 * E);  // groups in one beat of sums
  localparam SUB_BITS = SUBS > 1 ? $clog2(SUBS) : 1;
  localparam LATENCY = 8;

  // --- control ------------------------------------------------------------------------------------------------------

  wire start, write, write_half, read_half, result_half, drain, drain_half, unused_outer, unused_finished;
  wire [X_BITS-1:0] beat;
  wire drained = y_valid && y_ready && y_last;
  wire x_free;
  reg finished, cleared, fresh;
  reg [PLACE:0] clearing;

  // A beat that is taken now is written in the next cycle, unless h is: then it waits.
  reg [7:0] issued;
  wire [E-1:0] h_valid;
  wire waits = issued[6];
  assign x_ready = x_free && !waits;

  sequencer #(
      .BEATS(X_BEATS),
      .INNER_BITS(X_BITS)
  ) control (
      .clk(clk),
      .rst(rst),
      .ready(cleared && !rst),
      .x_valid(x_valid && !waits),
      .x_ready(x_free),
      .write(write),
      .write_half(write_half),
      .inner(beat),
      .outer(unused_outer),
      .start(start),
      .read_half(read_half),
      .result_half(result_half),
      .finished(finished),
      .drain(drain),
      .drain_half(drain_half),
      .drained(drained),
      .busy(busy),
      .done(done),
      .cycles(cycles)
  );

  always @(posedge clk) begin
    if (rst) begin
      clearing <= 0;
      cleared <= 0;
      fresh <= 1;
    end else begin
      if (!cleared) clearing <= clearing + 1'b1;
      if (&clearing) cleared <= 1;
      if (done) fresh <= 0;
    end
  end

  // --- vectors ------------------------------------------------------------------------------------------------------

  // A beat of x is written a cycle after it was taken, when its place is known.
  wire [N+PLACE-1:0] place;
  reg x_write, x_half;
  reg [N*VECTOR_BITS-1:0] x_held;
  ram #(
      .WIDTH(N + PLACE),
      .DEPTH_BITS(X_BITS),
      .WORDS(X_BEATS),
      .PRELOADED(1),
      .INIT(PLACES)
  ) places (
      .clk(clk),
      .write(1'b0),
      .write_address({X_BITS{1'b0}}),
      .write_data({(N + PLACE) {1'b0}}),
      .read(1'b1),
      .read_address(beat),
      .read_data(place)
  );
  always @(posedge clk) begin
    x_write <= write && !rst;
    x_half <= write_half;
    x_held <= x_data;
  end

  wire [E*(LANE_BITS+PLACE)-1:0] h_place;
  wire [E*VECTOR_BITS-1:0] h_data;
  reg [N-1:0] vector_write;
  reg [N*(1+PLACE)-1:0] vector_address;
  reg [N*VECTOR_BITS-1:0] vector_data;
  integer lane, e;
  always @(posedge clk) begin
    for (lane = 0; lane < N; lane = lane + 1) begin
      vector_write[lane] <= !cleared || (x_write && place[PLACE+lane]);
      vector_address[lane*(1+PLACE)+:1+PLACE] <= !cleared ? clearing : {x_half, place[PLACE-1:0]};
      vector_data[lane*VECTOR_BITS+:VECTOR_BITS] <= !cleared ? {VECTOR_BITS{1'b0}} : x_held[lane*VECTOR_BITS+:VECTOR_BITS];
      for (e = 0; e < E; e = e + 1)
        if (h_valid[e] && h_place[e*(LANE_BITS+PLACE)+PLACE+:LANE_BITS] == lane[LANE_BITS-1:0]) begin
          vector_write[lane] <= 1;
          vector_address[lane*(1+PLACE)+:1+PLACE] <= {!read_half, h_place[e*(LANE_BITS+PLACE)+:PLACE]};
          vector_data[lane*VECTOR_BITS+:VECTOR_BITS] <= h_data[e*VECTOR_BITS+:VECTOR_BITS];
        end
    end
  end

  // --- the product --------------------------------------------------------------------------------------------------

  wire [M-1:0] result_valid;
  wire [M*SUM_BITS-1:0] products;
  wire [M*OUT_BITS-1:0] sums;
  wire complete, there, take, unused_last;
  reg running, reading, was_read;
  wire read_out = running && !start && !was_read && complete;

  bank_engine #(
      .M(M),
      .N(N),
      .WIDTH(WEIGHT_BITS),
      .VECTOR_BITS(VECTOR_BITS),
      .INDEX_BITS(INDEX_BITS),
      .WAVE_BITS(WAVE_BITS),
      .SUM_BITS(SUM_BITS),
      .DEPTH_BITS(DEPTH_BITS),
      .WORDS(WORDS),
      .PRELOADED(1),
      .WEIGHTS(WEIGHTS),
      .WEIGHT_STYLE(WEIGHT_STYLE),
      .WEIGHT_STYLE_INTEL(WEIGHT_STYLE_INTEL),
      .VECTOR_STYLE(VECTOR_STYLE),
      .VECTOR_STYLE_INTEL(VECTOR_STYLE_INTEL)
  ) engine (
      .clk(clk),
      // A reset is a start with nothing to do.
      .start(start || rst),
      .lockstep(LOCKSTEP != 0),
      .counts(rst ? {(M * (DEPTH_BITS + 1)) {1'b0}} : COUNTS),
      .weight_write({M{1'b0}}),
      .weight_address({DEPTH_BITS{1'b0}}),
      .weight_data({(1 + WAVE_BITS + N * (INDEX_BITS + WEIGHT_BITS)) {1'b0}}),
      .half(read_half),
      .vector_write(vector_write),
      .vector_address(vector_address),
      .vector_data(vector_data),
      .result_valid(result_valid),
      .results(products)
  );

  outputs #(
      .LANES(M),
      .ROWS(4 * UNITS),
      .SUM_BITS(SUM_BITS),
      .OUT_BITS(OUT_BITS),
      .LEFT(LEFT),
      .SHIFT(SHIFT),
      .PER_ROW(PER_ROW),
      .CONSTANTS(CONSTANTS)
  ) out (
      .clk(clk),
      .rst(rst),
      .start(start),
      .half(1'b0),
      .sum_valid(result_valid),
      .sums(products),
      .complete(complete),
      .drain(read_out),
      .drain_half(1'b0),
      .take(take),
      .valid(there),
      .last(unused_last),
      .results(sums)
  );

  // --- the element-wise part ----------------------------------------------------------------------------------------

  reg [SUB_BITS-1:0] sub;
  reg [GROUP_BITS-1:0] group;
  reg [LATENCY-1:0] ends;
  reg [LATENCY*GROUP_BITS-1:0] groups;
  wire issue = there && reading;
  localparam [31:0] LAST_GROUP = GROUPS - 1;
  localparam [31:0] LAST_SUB = SUBS - 1;
  wire last_group = group == LAST_GROUP[GROUP_BITS-1:0];
  wire [GROUP_BITS-1:0] group_out = groups[(LATENCY-1)*GROUP_BITS+:GROUP_BITS];
  assign take = issue && (sub == LAST_SUB[SUB_BITS-1:0] || last_group);

  always @(posedge clk) begin
    if (start) was_read <= 0;
    else if (read_out) was_read <= 1;
    if (start) running <= 1;
    else if (finished) running <= 0;
    if (read_out) begin
      reading <= 1;
      sub <= 0;
      group <= 0;
    end else if (issue) begin
      sub <= take ? {SUB_BITS{1'b0}} : sub + 1'b1;
      group <= group + 1'b1;
      if (last_group) reading <= 0;
    end
    issued <= {issued[LATENCY-2:0], issue};
    ends <= {ends[LATENCY-2:0], issue && last_group};
    groups <= {groups[(LATENCY-1)*GROUP_BITS-1:0], group};
    // h is in the vector RAMs a cycle after it has left the cells.
    finished <= ends[LATENCY-1];
    if (rst) begin
      running <= 0;
      reading <= 0;
      issued <= 0;
      ends <= 0;
      finished <= 0;
    end
  end

  wire [E*4*OUT_BITS-1:0] gates = sums[sub*E*4*OUT_BITS+:E*4*OUT_BITS];
  wire [E*2*VECTOR_BITS-1:0] outputs;

  genvar cell_at;
  generate
    for (cell_at = 0; cell_at < E; cell_at = cell_at + 1) begin : cells
      wire [2*VECTOR_BITS-1:0] exact;

      lstm_cell #(
          .BITS(VECTOR_BITS),
          .PLACE_BITS(OUT_BITS),
          .STATE_EXPONENT(STATE_EXPONENT),
          .H_EXPONENT(H_EXPONENT),
          .UNIT_BITS(GROUP_BITS),
          .UNITS(GROUPS)
      ) one_unit (
          .clk(clk),
          .fresh(fresh),
          .valid(issue),
          .unit(group),
          .gate_i(gates[(4*cell_at)*OUT_BITS+:OUT_BITS]),
          .gate_f(gates[(4*cell_at+1)*OUT_BITS+:OUT_BITS]),
          .gate_g(gates[(4*cell_at+2)*OUT_BITS+:OUT_BITS]),
          .gate_o(gates[(4*cell_at+3)*OUT_BITS+:OUT_BITS]),
          .h(h_data[cell_at*VECTOR_BITS+:VECTOR_BITS]),
          .exact(exact)
      );
      // The last group may have fewer units.
      wire is_unit = group_out * E + cell_at < UNITS;
      assign h_valid[cell_at] = issued[LATENCY-1] && is_unit;
      assign outputs[cell_at*2*VECTOR_BITS+:2*VECTOR_BITS] = is_unit ? exact : {(2 * VECTOR_BITS) {1'b0}};

      // Read a cycle before it is needed.
      ram #(
          .WIDTH(LANE_BITS + PLACE),
          .DEPTH_BITS(GROUP_BITS),
          .WORDS(GROUPS),
          .PRELOADED(1),
          .INIT(UNIT_PLACES),
          .NUMBER(cell_at)
      ) unit_places (
          .clk(clk),
          .write(1'b0),
          .write_address({GROUP_BITS{1'b0}}),
          .write_data({(LANE_BITS + PLACE) {1'b0}}),
          .read(1'b1),
          .read_address(groups[(LATENCY-2)*GROUP_BITS+:GROUP_BITS]),
          .read_data(h_place[cell_at*(LANE_BITS+PLACE)+:LANE_BITS+PLACE])
      );
    end
  endgenerate

  // --- outputs ------------------------------------------------------------------------------------------------------

  stream #(
      .WIDTH(E * 2 * VECTOR_BITS),
      .DEPTH_BITS(GROUP_BITS + 1)
  ) results (
      .clk(clk),
      .start(drain || rst),
      .first({drain_half, {GROUP_BITS{1'b0}}}),
      .count(rst ? {(GROUP_BITS + 2) {1'b0}} : GROUPS[GROUP_BITS+1:0]),
      .write(issued[LATENCY-1]),
      .write_address({result_half, group_out}),
      .write_data(outputs),
      .take(y_valid && y_ready),
      .valid(y_valid),
      .word(y_data),
      .finished(unused_finished)
  );

  beats #(
      .BEATS(GROUPS)
  ) outgoing (
      .clk(clk),
      .drain(drain),
      .take(y_valid && y_ready),
      .last(y_last)
  );
endmodule
