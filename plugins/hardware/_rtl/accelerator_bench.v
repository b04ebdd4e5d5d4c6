// Runs an emitted design on its vectors and checks every result and every cycle.
//
// First all vectors one behind the other, nobody waiting; then, after a reset in the middle of a product, all of them
// with pauses on both streams, long ones between vectors. Prints `products P values V wrong W cycles C expected E off O`: values that were checked,
// values that differ, are missing or too many; cycles of the last product, and products that took another number of
// cycles than expected. What it runs is told in design.vh. With +dump=FILE only the first of the two is run, and every
// beat of results is written there.
`include "design.vh"
module accelerator_bench;
  localparam X_BITS = `X_BITS;
  localparam Y_BITS = `Y_BITS;
  localparam X_BEATS = `X_BEATS;
  localparam Y_BEATS = `Y_BEATS;
  localparam VECTORS = `VECTORS;
  localparam PATIENCE = VECTORS * (8 * (X_BEATS + Y_BEATS) + 4 * `CYCLES) + 1000;

  reg [X_BITS-1:0] vectors[0:VECTORS*X_BEATS-1];
  reg [Y_BITS-1:0] expected[0:VECTORS*Y_BEATS-1];

  reg clk = 0, rst = 1;
  initial forever #5 clk = !clk;

  reg x_valid = 0, y_ready = 0;
  reg [X_BITS-1:0] x_data = 0;
  wire x_ready, busy, done, y_valid, y_last;
  wire [31:0] cycles;
  wire [Y_BITS-1:0] y_data;

  `TOP dut (
      .clk(clk),
      .rst(rst),
      .x_valid(x_valid),
      .x_ready(x_ready),
      .x_data(x_data),
      .busy(busy),
      .done(done),
      .cycles(cycles),
      .y_valid(y_valid),
      .y_ready(y_ready),
      .y_data(y_data),
      .y_last(y_last)
  );

  reg [8191:0] file;
  integer dump = 0;
  integer given, taken, products, values, wrong, off, waited, hold;
  reg kept, held;
  reg [31:0] dice = 32'h2545f491;

  // Inputs change in the middle of a cycle: no race with the clock edge in any simulator. Ready does not depend on valid,
  // nor valid on ready, so that what stands now is what the coming edge sees.
  task step(input pauses);
    begin
      @(negedge clk);
      dice = {dice[30:0], dice[31] ^ dice[21] ^ dice[1] ^ dice[0]};
      // An element that is offered stays until it is taken.
      if (!x_valid || kept) begin
        if (pauses && !held && given % X_BEATS == 0) begin
          hold = {16'd0, dice[19:4]} % (2 * `CYCLES);
          held = 1;
        end
        if (hold > 0) hold = hold - 1;
        x_valid = given < VECTORS * X_BEATS && hold == 0 && !(pauses && dice[3:0] < 6);
        if (x_valid) x_data = vectors[given];
      end
      kept = x_valid && x_ready;
      if (kept) begin
        given = given + 1;
        held = 0;
      end
      y_ready = !(pauses && dice[9:6] < 6);
      if (y_valid && y_ready) begin
        values = values + 1;
        if (dump != 0) $fwrite(dump, "%h\n", y_data);
        if (taken >= VECTORS * Y_BEATS) wrong = wrong + 1;
        else if (y_data !== expected[taken] || y_last !== (taken % Y_BEATS == Y_BEATS - 1)) wrong = wrong + 1;
        taken = taken + 1;
      end
      if (done) begin
        products = products + 1;
        if (cycles !== `CYCLES) off = off + 1;
      end
      waited = waited + 1;
    end
  endtask

  task reset;
    begin
      @(negedge clk);
      rst = 1;
      x_valid = 0;
      y_ready = 0;
      @(negedge clk);
      @(negedge clk);
      rst = 0;
      given = 0;
      taken = 0;
      waited = 0;
      kept = 0;
      hold = 0;
      held = 0;
    end
  endtask

  task run(input pauses);
    begin
      while (taken < VECTORS * Y_BEATS && waited < PATIENCE) step(pauses);
      // Nothing more may come.
      repeat (2 * Y_BEATS + 8) step(pauses);
      if (taken < VECTORS * Y_BEATS) wrong = wrong + VECTORS * Y_BEATS - taken;
      if (busy !== 1'b0) off = off + 1;
    end
  endtask

  initial begin
    $readmemh("bench/vectors.hex", vectors);
    $readmemh("bench/expected.hex", expected);
    products = 0;
    values = 0;
    wrong = 0;
    off = 0;
    if ($value$plusargs("dump=%s", file)) dump = $fopen(file, "w");
    reset;
    run(1'b0);
    if (dump != 0) begin
      $fclose(dump);
      $display("wrong %0d off %0d", wrong, off);
      $finish;
    end
    reset;
    repeat (X_BEATS + `CYCLES / 2 + 2) step(1'b0);
    products = VECTORS;
    values = VECTORS * Y_BEATS;
    reset;
    run(1'b1);
    $display("products %0d values %0d wrong %0d cycles %0d expected %0d off %0d", products, values, wrong, cycles,
             `CYCLES, off);
    if (wrong != 0 || off != 0 || products != 2 * VECTORS) $fatal(1, "FAIL");
    $display("PASS");
    $finish;
  end
endmodule
